package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/netsampler/goflow2/v2/decoders/netflow"

	"tollbridge/ipfix"
)

// decodeMessages are decoded over and over: 5.6 MB, more than a cache holds.
const decodeMessages = 1 << 12

func decoding(l *lab) comparison {
	return comparison{
		name: "decode", what: "Decode records of 13 fields, 24 per Message", unit: "records", aim: 0.05,
		ours: contender{"package ipfix", func(ctx context.Context) (sample, error) {
			return decode(ctx, l.size(20_000_000), newOurDecoder())
		}},
		peers: []contender{{"goflow2's decoder", func(ctx context.Context) (sample, error) {
			return decode(ctx, l.size(2_000_000), newGoflow2Decoder())
		}}},
	}
}

// A decoder decodes a Message and returns the number of its Data Records.
type decoder func(msg []byte) (int, error)

// decode decodes records Data Records in this process.
func decode(ctx context.Context, records int, d decoder) (sample, error) {
	l := newLoad(1_000_000)
	t, err := l.template()
	if err != nil {
		return sample{}, err
	}
	if _, err := d(t); err != nil {
		return sample{}, err
	}
	messages := make([][messageLength]byte, decodeMessages)
	for i := range messages {
		l.message(messages[i][:])
	}
	before := ownCPU()
	var s sample
	for i := 0; s.n < uint64(records); i++ {
		n, err := d(messages[i%decodeMessages][:])
		if err != nil {
			return s, err
		}
		if n != recordsPerMessage {
			return s, fmt.Errorf("%d records decoded of %d", n, recordsPerMessage)
		}
		s.n += uint64(n)
	}
	s.cpu = ownCPU() - before
	return s, ctx.Err()
}

// slots are those of a row: the 13 values, of which addresses take two.
const slots = 15

// columns are the 13 values.
var columns = []ipfix.Column{
	{Slot: 0, Form: ipfix.Address, Elements: []ipfix.Element{{ID: ipfix.SourceIPv4Address}, {ID: ipfix.SourceIPv6Address}}},
	{Slot: 2, Form: ipfix.Address, Elements: []ipfix.Element{{ID: ipfix.DestinationIPv4Address}, {ID: ipfix.DestinationIPv6Address}}},
	{Slot: 4, Elements: []ipfix.Element{{ID: ipfix.SourceTransportPort}}},
	{Slot: 5, Elements: []ipfix.Element{{ID: ipfix.DestinationTransportPort}}},
	{Slot: 6, Elements: []ipfix.Element{{ID: ipfix.ProtocolIdentifier}}},
	{Slot: 7, Elements: []ipfix.Element{{ID: ipfix.IpDiffServCodePoint}}},
	{Slot: 8, Elements: []ipfix.Element{{ID: ipfix.OctetDeltaCount}}},
	{Slot: 9, Elements: []ipfix.Element{{ID: ipfix.PacketDeltaCount}}},
	{Slot: 10, Form: ipfix.UnixMilli, Elements: []ipfix.Element{{ID: ipfix.FlowStartMilliseconds}, {ID: ipfix.FlowStartSeconds}}},
	{Slot: 11, Form: ipfix.UnixMilli, Elements: []ipfix.Element{{ID: ipfix.FlowEndMilliseconds}, {ID: ipfix.FlowEndSeconds}}},
	{Slot: 12, Elements: []ipfix.Element{{ID: ipfix.FlowEndReason}}},
	{Slot: 13, Elements: []ipfix.Element{{ID: ipfix.IngressInterface}}},
	{Slot: 14, Elements: []ipfix.Element{{ID: ipfix.EgressInterface}}},
}

// newOurDecoder reads all fields of every record into numbers, as the pipeline
// does: up to 32 records at once.
func newOurDecoder() decoder {
	session := ipfix.NewSession(ipfix.UDP)
	var plan *ipfix.Plan
	var rows [32 * slots]uint64
	n := 0
	visit := func(set ipfix.DataSet) {
		for from := 0; from < set.Records; {
			k := plan.ReadRows(&set, from, rows[:], slots)
			if k == 0 {
				return // they are found missing
			}
			n, from = n+k, from+k
		}
	}
	return func(msg []byte) (int, error) {
		n = 0
		result, err := session.Decode(msg, visit)
		for _, t := range result.New {
			plan = t.Plan(columns...)
		}
		return n, err
	}
}

// newGoflow2Decoder splits every record into fields, of which goflow2's
// producer would then make numbers.
func newGoflow2Decoder() decoder {
	templates := netflow.CreateTemplateSystem()
	return func(msg []byte) (int, error) {
		var packet netflow.IPFIXPacket
		if err := netflow.DecodeMessageVersion(bytes.NewBuffer(msg), templates, nil, &packet); err != nil {
			return 0, err
		}
		n := 0
		for _, set := range packet.FlowSets {
			if data, ok := set.(netflow.DataFlowSet); ok {
				n += len(data.Records)
			}
		}
		return n, nil
	}
}

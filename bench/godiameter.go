package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/fiorix/go-diameter/v4/diam"
	"github.com/fiorix/go-diameter/v4/diam/avp"
	"github.com/fiorix/go-diameter/v4/diam/datatype"
	"github.com/fiorix/go-diameter/v4/diam/dict"
	"github.com/fiorix/go-diameter/v4/diam/sm"

	"tollbridge/asm/acct"
)

// baseAccounting is the Application Id of RFC 6733, Section 2.4.
const baseAccounting = 3

// godiameterChild sends ACRs with go-diameter's own API, matches the answers
// by Hop-by-Hop Identifier, and keeps nothing.
//
//	send ──► window ──► connection ──► handler ──► window
func godiameterChild(ctx context.Context, args []string) error {
	address := args[0]
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	settings := &sm.Settings{
		OriginHost: bridgeHost, OriginRealm: bridgeRealm, ProductName: "bench",
		HostIPAddresses: []datatype.Address{datatype.Address(net.IPv4(127, 0, 0, 1))},
	}
	machine := sm.New(settings)
	answers := make(chan *diam.Message, deliveryWindow)
	machine.HandleFunc("ACA", func(_ diam.Conn, m *diam.Message) { answers <- m })
	client := &sm.Client{
		Dict: dict.Default, Handler: machine,
		AcctApplicationID: []*diam.AVP{diam.NewAVP(avp.AcctApplicationID, avp.Mbit, 0, datatype.Unsigned32(baseAccounting))},
	}
	conn, err := client.Dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()

	unanswered := make(map[uint32]uint32, deliveryWindow) // End-to-End by Hop-by-Hop Identifier
	for sent, settled := 0, 0; settled < n; {
		for sent < n && len(unanswered) < deliveryWindow {
			r := accountingRecord(sent)
			m := godiameterRequest(&r)
			// The library draws these at random and lets them collide.
			m.Header.HopByHopID, m.Header.EndToEndID = uint32(sent), uint32(sent)
			if _, err := m.WriteTo(conn); err != nil {
				return err
			}
			unanswered[m.Header.HopByHopID] = m.Header.EndToEndID
			sent++
		}
		select {
		case m := <-answers:
			if e2e, ok := unanswered[m.Header.HopByHopID]; !ok || e2e != m.Header.EndToEndID {
				return fmt.Errorf("an answer to no request: %v", m.Header)
			}
			var answer struct {
				ResultCode uint32 `avp:"Result-Code"`
			}
			if err := m.Unmarshal(&answer); err != nil {
				return err
			}
			if answer.ResultCode != diam.Success {
				return fmt.Errorf("Result-Code %d", answer.ResultCode)
			}
			delete(unanswered, m.Header.HopByHopID)
			settled++
		case report := <-machine.ErrorReports():
			return report.Error
		case <-conn.(diam.CloseNotifier).CloseNotify():
			return errors.New("the server closed the connection")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// godiameterRequest builds the ACR that we send for r, but for our vendor's
// AVPs.
func godiameterRequest(r *acct.Record) *diam.Message {
	m := diam.NewRequest(diam.Accounting, baseAccounting, dict.Default)
	m.NewAVP(avp.SessionID, avp.Mbit, 0, datatype.UTF8String(r.SessionID))
	m.NewAVP(avp.OriginHost, avp.Mbit, 0, datatype.DiameterIdentity(bridgeHost))
	m.NewAVP(avp.OriginRealm, avp.Mbit, 0, datatype.DiameterIdentity(bridgeRealm))
	m.NewAVP(avp.DestinationRealm, avp.Mbit, 0, datatype.DiameterIdentity(serverRealm))
	m.NewAVP(avp.AccountingRecordType, avp.Mbit, 0, datatype.Enumerated(r.Type))
	m.NewAVP(avp.AccountingRecordNumber, avp.Mbit, 0, datatype.Unsigned32(r.Number))
	m.NewAVP(avp.AcctApplicationID, avp.Mbit, 0, datatype.Unsigned32(baseAccounting))
	m.NewAVP(avp.UserName, avp.Mbit, 0, datatype.UTF8String(r.User))
	m.NewAVP(avp.EventTimestamp, avp.Mbit, 0, datatype.Time(r.Event))
	m.NewAVP(avp.FramedIPAddress, avp.Mbit, 0, datatype.OctetString(r.Framed.Addr().AsSlice()))
	m.NewAVP(avp.AcctSessionTime, avp.Mbit, 0, datatype.Unsigned32(r.SessionTime.Seconds()))
	m.NewAVP(avp.AccountingInputOctets, avp.Mbit, 0, datatype.Unsigned64(r.Usage.InputOctets))
	m.NewAVP(avp.AccountingOutputOctets, avp.Mbit, 0, datatype.Unsigned64(r.Usage.OutputOctets))
	m.NewAVP(avp.AccountingInputPackets, avp.Mbit, 0, datatype.Unsigned64(r.Usage.InputPackets))
	m.NewAVP(avp.AccountingOutputPackets, avp.Mbit, 0, datatype.Unsigned64(r.Usage.OutputPackets))
	return m
}

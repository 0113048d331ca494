package main

import (
	"cmp"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollbridge/asm/acct"
)

// A counter and a gauge take a value of a metric: its name, what it counts, and
// the names and values of its labels.
type (
	counter func(name, help string, value uint64, labels ...string)
	gauge   func(name, help string, value float64, labels ...string)
)

// metrics turns the snapshots of the daemon's parts into Prometheus metrics
// when asked. Each part has a function in it that takes a snapshot.
type metrics []func(counter, gauge)

// Describe sends nothing, which makes this an unchecked Collector.
func (metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m metrics) Collect(ch chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		var names, values []string
		for i := 0; i < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		desc := prometheus.NewDesc("tollbridge_"+name, help, names, nil)
		ch <- prometheus.MustNewConstMetric(desc, kind, value, values...)
	}
	for _, part := range m {
		part(func(name, help string, value uint64, labels ...string) {
			send(prometheus.CounterValue, name, help, float64(value), labels...)
		}, func(name, help string, value float64, labels ...string) {
			send(prometheus.GaugeValue, name, help, value, labels...)
		})
	}
}

// metrics are those of a daemon that accounts.
func (b *bridge) metrics() metrics {
	parts := metrics{b.collectorMetrics, b.spoolMetrics, b.clockMetrics, b.pipelineMetrics, b.userMetrics, b.sources.metrics, b.deliveryMetrics}
	if b.credit != nil {
		parts = append(parts, b.creditMetrics)
	}
	if b.archive != nil {
		parts = append(parts, b.archiveMetrics)
	}
	if b.server != nil {
		parts = append(parts, b.serverMetrics)
	}
	return parts
}

// collectorMetrics are those of the Collecting Process.
func (b *bridge) collectorMetrics(counter counter, gauge gauge) {
	collected := b.collector.Stats()
	counter("collector_kernel_dropped_total", "Datagrams that the kernel dropped since we read too slowly.", collected.Dropped)
	counter("collector_refused_total", "Datagrams and connections of strangers, or beyond a limit.", collected.Refused)
	counter("collector_acknowledgements_total", "Acknowledgements sent to exporters that ask for them.", collected.Acknowledgements)
	counter("collector_held_up_total", "Times that such an exporter was told to wait, and why.", collected.HeldUp)
	gauge("collector_acknowledged_exporters", "Connections whose exporter asks for acknowledgements.", float64(collected.Acknowledged))
	counter("collector_handshakes_failed_total", "Handshakes of TLS and DTLS that came to nothing.", collected.Handshakes)
	if at := b.credentials.expires.Load(); at != 0 {
		gauge("collector_certificate_expiry_timestamp_seconds", "When our certificate for TLS and DTLS ends, in Unix time.", float64(at))
	}
	for name, e := range collected.Exporters {
		counter("collector_messages_total", "Well-formed IPFIX Messages.", e.Messages, "exporter", name)
		counter("collector_octets_total", "Octets of these.", e.Octets, "exporter", name)
		counter("collector_sessions_opened_total", "Transport Sessions begun.", e.Opened, "exporter", name)
		counter("collector_sessions_closed_total", "Of these, ended.", e.Closed, "exporter", name)
		counter("collector_sessions_evicted_total", "Of those that ended, to make room for another.", e.Evicted, "exporter", name)
		counter("collector_exporter_refused_total", "Connections of a known exporter beyond its limits.", e.Refused, "exporter", name)
		for cause, n := range e.Malformed {
			counter("collector_malformed_total", "Messages discarded as malformed.", n, "exporter", name, "cause", cause.String())
		}
	}

}

// creditMetrics are those of credit control.
func (b *bridge) creditMetrics(counter counter, gauge gauge) {
	c := b.credit.Stats()
	gauge("credit_sessions", "Sessions under credit control.", float64(c.Sessions))
	gauge("credit_peers_ready", "Credit-control servers that can be asked.", float64(c.PeersReady))
	gauge("credit_unanswered", "Requests that wait, or are on their way.", float64(c.Unanswered))
	counter("credit_requests_total", "Credit-Control-Requests sent, copies too.", c.Requests)
	counter("credit_retransmitted_total", "Of these, copies.", c.Retransmitted)
	counter("credit_answers_total", "Answers to them.", c.Answers)
	counter("credit_exhausted_total", "Quotas used up or refused.", c.Exhausted)
	counter("credit_refused_total", "Sessions of which the server wants no credit control.", c.Refused)
}

// spoolMetrics are those of what is stored.
func (b *bridge) spoolMetrics(counter counter, gauge gauge) {
	j := b.spool.Journal().Stats()
	counter("journal_entries_total", "Journal entries made durable.", j.Entries)
	counter("journal_octets_total", "Octets of journal groups made durable.", j.Octets)
	gauge("journal_first_position", "Oldest position that can be read.", float64(j.First))
	gauge("journal_last_position", "Latest durable position.", float64(j.Last))
	gauge("journal_held_octets", "Octets that wait to be made durable.", float64(j.Held))
	gauge("journal_full", "1 while the journal waits for space on the disk.", truth(j.Full))
	_, held := b.spool.Journal().Held()
	gauge("journal_messages_held", "1 while messages have to wait, since the disk is full or a high-water mark is passed.", truth(held))
	stored := b.spool.Stored()
	gauge("spool_octets", "Octets that count against a high-water mark.", float64(stored.Journal), "store", "journal")
	gauge("spool_octets", "Octets that count against a high-water mark.", float64(stored.Outbox), "store", "outbox")
	if books := b.books.Load(); books != nil {
		gauge("books_balanced", "0 while the books do not balance, as of the latest check.", truth(books.balanced))
		gauge("books_checked_timestamp_seconds", "When that was.", float64(books.at.Unix()))
		gauge("books_check_seconds", "How long it took.", books.took.Seconds())
	}
	counter("journal_damaged_groups_total", "Groups set aside as damaged.", j.DamagedGroups)

	o := b.spool.Outbox().Stats()
	gauge("outbox_pending", "Accounting records not settled yet.", float64(o.Pending))
	for state, n := range map[acct.DeliveryState]uint64{acct.Acknowledged: o.Acknowledged, acct.Quarantined: o.Quarantined, acct.Covered: o.Covered} {
		counter("outbox_settled_total", "Accounting records settled.", n, "state", state.String())
	}
}

// archiveMetrics are those of the archive.
func (b *bridge) archiveMetrics(_ counter, gauge gauge) {
	gauge("spool_octets", "Octets that count against a high-water mark.", float64(b.archive.Octets()), "store", "archive")
	gauge("archive_failing", "1 while the archive can't be written.", truth(b.archive.Err() != nil))
	gauge("archive_position", "Journal position archived up to.", float64(b.archive.Last()))
}

// clockMetrics are those of the host's clock.
func (b *bridge) clockMetrics(counter counter, gauge gauge) {
	counter("clock_steps_total", "Steps of the host's clock.", b.clock.forward.Load(), "direction", "forward")
	counter("clock_steps_total", "Steps of the host's clock.", b.clock.back.Load(), "direction", "back")
	gauge("clock_unsynchronized", "1 while nothing keeps the host's clock right (STA_UNSYNC).", truth(b.clock.unsynced.Load()))
	gauge("clock_behind_seconds", "How far the host's clock is behind that of accounting, beyond the tolerance.", time.Duration(b.clock.behind.Load()).Seconds())

}

// pipelineMetrics are those of accounting.
func (b *bridge) pipelineMetrics(counter counter, gauge gauge) {
	p := b.runner.Stats()
	for how, n := range map[string]uint64{"compared": p.Compared, "by identity alone": p.Uncompared} {
		counter("pipeline_duplicates_total", "Duplicates, and whether they were compared with the record that came first.", n, "how", how)
	}
	counter("pipeline_collisions_total", "Records that had the identity of another and were told apart.", p.Collisions)
	counter("pipeline_clock_set_back_total", "How often the clock of accounting was ahead and was set back.", p.SetBack)
	counter("pipeline_failures_total", "How often accounting resumed at the last checkpoint.", b.runner.Failures())
	gauge("pipeline_standing_still", "1 while accounting stands still.", truth(b.runner.Err() != nil))
	gauge("pipeline_position", "Journal position of the last checkpoint.", float64(b.runner.Committed()))
	gauge("pipeline_sessions", "User sessions that are active.", float64(p.Sessions))
	gauge("pipeline_transport_sessions", "Transport Sessions that are open.", float64(p.Transports))
	gauge("pipeline_suspended", "Flows that wait for a user.", float64(p.Suspended))
	gauge("pipeline_identities", "Data Records remembered to recognize duplicates.", float64(p.Identities))
	counter("pipeline_messages_total", "Messages that the pipeline has read since the start.", p.Messages)
	counter("pipeline_unusable_entries_total", "Journal entries that could not be applied, such as Messages beyond an exporter's limits.", p.Broken)
	counter("pipeline_records_total", "Data Records of usage received since the start.", p.Records)
	counter("pipeline_not_usage_records_total", "Data Records without any address, which the books leave out.", p.NotUsage)
	counter("pipeline_options_records_total", "Data Records of Options Templates.", p.OptionsRecords)
	for why, n := range map[string]uint64{"no counter": p.NoCounter, "too large": p.TooLarge} {
		counter("pipeline_rejected_records_total", "Data Records that the books have as rejected.", n, "why", why)
	}
	for what, n := range map[string]uint64{"kept": p.EarlySets, "dropped": p.EarlyDropped, "decoded": p.EarlyDecoded, "misfit": p.EarlyMisfits} {
		counter("pipeline_early_sets_total", "Data Sets that came before their Template, and what became of them.", n, "what", what)
	}
	for what, n := range map[string]uint64{"repeated": p.TemplatesRepeated, "withdrawal ignored": p.WithdrawalsIgnored} {
		counter("pipeline_template_faults_total", "Templates sent again over a reliable transport, and withdrawals of what is not held or over UDP (RFC 7011, Section 8).", n, "what", what)
	}
	counter("pipeline_accounting_records_total", "Accounting records cut and committed since the start.", p.AccountingRecords)

	for what, n := range map[string]uint64{"resent": p.ResentMessages, "conflict": p.PositionConflicts, "forgotten": p.ForgottenPositions} {
		counter("pipeline_positions_total", "Messages of acknowledged export whose position was known already, was another's, or is too old to be known.", n, "outcome", what)
	}
	counter("pipeline_given_up_records_total", "Data Records that exporters told to have had no room for.", p.GivenUpRecords)
	counter("pipeline_requests_total", "Accounting-Requests that became accounting records here.", p.Requests)
	for what, n := range map[string]uint64{"duplicate": p.RequestDuplicates, "conflict": p.RequestConflicts, "forwarded": p.Forwarded} {
		counter("pipeline_request_outcomes_total", "Of these, that came before, contradict one that did, or are for another realm.", n, "outcome", what)
	}
	counter("pipeline_unknown_sampler_total", "Records counted unscaled, since nothing was said of the sampler that they name.", p.UnknownSampler)
	gauge("pipeline_totals", "Flows remembered whose counters are totals.", float64(p.Totals))
	counter("pipeline_totals_forgotten_total", "Flows forgotten of these, that may have gone on.", p.TotalsForgotten)
	gauge("pipeline_named_sessions", "Sessions of users whom flow records named.", float64(p.InBand))
	for what, n := range map[string]uint64{"invalid": p.InBandInvalid, "conflict": p.InBandConflicts, "refused": p.InBandRefused} {
		counter("pipeline_named_users_total", "Records whose named user was no name, not who their address is bound to, or one too many.", n, "outcome", what)
	}
	counter("pipeline_interim_intervals_total", "Acct-Interim-Intervals of answers that sessions go by.", p.Interims, "outcome", "obeyed")
	counter("pipeline_interim_intervals_total", "Acct-Interim-Intervals of answers that sessions go by.", p.InterimsIdle, "outcome", "session over")
	for _, c := range p.Clocks {
		gauge("exporter_clock_offset_seconds", "How far the exporter's clock is behind arrival, at the least of a minute.", c.Offset.Seconds(), "exporter", c.Exporter)
	}
}

// userMetrics are those of who held which address.
func (b *bridge) userMetrics(counter counter, gauge gauge) {
	p := b.runner.Stats()
	counter("users_events_total", "Events of user sessions applied since the start.", p.Events-p.EventsIdle, "outcome", "applied")
	counter("users_events_total", "Events of user sessions applied since the start.", p.EventsIdle, "outcome", "nothing new")
	gauge("users_sessions", "User sessions that sources told of and that are remembered.", float64(p.UserSessions))
	counter("users_sessions_refused_total", "Events of user sessions beyond those that can be remembered.", p.SessionsRefused)
	counter("users_overlaps_total", "A session began to hold a prefix that another of its source still held.", p.Overlaps)
	counter("users_contradictions_total", "Sessions that turned out to have ended before usage that is accounted to them.", p.Contradictions)
	counter("users_corrections_total", "Accounting records that correct others, since a binding came late.", p.Corrections)
	gauge("users_correctable_octets", "Memory that remembers what was accounted, to be corrected.", float64(p.Charges))
	gauge("users_correctable_since_timestamp_seconds", "Since when what was accounted is remembered; 0 if it is not.", float64(p.ChargedFor)/1000)
	for what, n := range map[string]uint64{"mapping": p.NATEvents - p.NATOther - p.NATInvalid, "threshold or quota": p.NATOther, "invalid": p.NATInvalid} {
		counter("users_nat_events_total", "NAT event records (RFC 8158).", n, "what", what)
	}
	gauge("users_mappings", "Shares of ports that NATs told of and that are remembered.", float64(p.Mappings))
	counter("users_mappings_refused_total", "Shares of ports beyond those that can be remembered.", p.MappingsRefused)
}

// deliveryMetrics are those of the Diameter client.
func (b *bridge) deliveryMetrics(counter counter, gauge gauge) {
	c := b.client.Stats()
	counter("delivery_requests_total", "Accounting-Requests sent, each sending counted.", c.Sent)
	counter("delivery_retransmissions_total", "Of these, with the T flag.", c.Resent)
	counter("delivery_answers_total", "Accounting-Answers that belonged to a request.", c.Answered)
	counter("delivery_timeouts_total", "Requests not answered in time.", c.Timeouts)
	counter("delivery_outbox_failures_total", "Times that the outbox could not be read or written: delivery waits.", c.OutboxFails)
	counter("delivery_interim_interval_failures_total", "Times that the Acct-Interim-Intervals of answers could not be journaled: delivery goes on, and they are tried again.", c.ObeyFails)
	for _, peer := range c.Peers {
		gauge("delivery_peer_ready", "1 if the peer takes requests.", truth(peer.Ready), "peer", peer.Address)
		gauge("delivery_peer_in_flight", "Unanswered requests.", float64(peer.InFlight), "peer", peer.Address)
		gauge("delivery_peer_limit", "The most unanswered requests that the peer gets now.", float64(peer.Limit), "peer", peer.Address)
		gauge("delivery_peer_realtime_required", "1 while the peer demands DELIVER_AND_GRANT (RFC 6733, Section 9.8.7).", truth(peer.Realtime), "peer", peer.Address)
		gauge("delivery_peer_cutting", "1 while the peer cuts the connection off whatever it is sent.", truth(peer.Cutting), "peer", peer.Address)
	}
	for _, l := range b.quotas {
		realms := strings.Join(l.realms, " ")
		gauge("delivery_realm_pending", "Accounting records that wait, where maxPending bounds them; counted once a minute.", float64(l.pending.Load()), "realms", realms)
		gauge("delivery_realm_over_quota", "1 while more of them wait than maxPending.", truth(l.pending.Load() > l.most), "realms", realms)
	}
	if b.realtime != nil {
		counter("delivery_sessions_withdrawn_total", "Sessions that were to be ended, or changed, since their records could not be delivered in real time.", b.realtime.count.Load())
	}
	for _, r := range c.Routes {
		realms := cmp.Or(strings.Join(r.Realms, " "), "*")
		gauge("delivery_realm_ready", "1 if a peer takes the realms' requests.", truth(r.Ready), "realms", realms)
		counter("delivery_realm_requests_total", "Accounting-Requests sent, each sending counted.", r.Sent, "realms", realms)
		counter("delivery_realm_records_total", "Accounting records that were answered for good.", r.Settled, "realms", realms, "outcome", "acknowledged")
		counter("delivery_realm_records_total", "Accounting records that were answered for good.", r.Quarantined, "realms", realms, "outcome", "quarantined")
		counter("delivery_realm_limited_total", "How often the realms' records were held back by their rate.", r.Limited, "realms", realms)
	}
}

// serverMetrics are those of the Diameter entrance.
func (b *bridge) serverMetrics(counter counter, gauge gauge) {
	s := b.server.Stats()
	counter("server_requests_total", "Accounting-Requests taken.", s.Requests)
	for what, n := range map[string]uint64{"stored": s.Stored, "flow": s.Flows, "forwarded": s.Forwarded, "binding": s.Bindings, "duplicate": s.Duplicates, "conflict": s.Conflicts, "invalid": s.Invalid, "failed": s.Failed} {
		counter("server_outcomes_total", "What became of them.", n, "outcome", what)
	}
	counter("server_access_empty_total", "Requests of access servers that named no user or no address.", b.entrance.empty.Load())
	counter("server_access_unusable_total", "Requests of access servers that could not be used.", b.entrance.unreadable.Load())
	gauge("server_connections", "Diameter connections.", float64(s.Open))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

#!/usr/bin/env escript
%% A partner of one Diameter node on Erlang/OTP's diameter, which keeps one
%% connection with each peer (restrict_connections): it listens, connects to us,
%% answers our Accounting-Requests, and sends its own one after the other, each
%% until it is answered with success.
%% usage: partner.escript ORIGIN_HOST PORT OUR_PORT REQUESTS
%%   Prints "up" and "down" with its connection, "acr SESSION NUMBER" for each
%%   request that it answers, and "done" when all of its own are answered. "cut"
%%   on its standard input cuts its connections off.
-module(partner).
-mode(compile).
-export([main/1, peer_up/3, peer_down/3, pick_peer/4, prepare_request/3, prepare_retransmit/3, handle_answer/4, handle_error/4, handle_request/3]).
-record(diameter_packet, {header, avps, msg, bin, errors = [], transport_data}).

main([Host, Port, OurPort, Requests]) ->
    logger:set_primary_config(level, none), % it would tell of each cut
    ok = diameter:start(),
    ok = diameter:start_service(partner, [
        {'Origin-Host', Host}, {'Origin-Realm', "partner.example"}, {'Vendor-Id', 0}, {'Product-Name', "partner"},
        {'Host-IP-Address', [{127,0,0,1}]}, {'Acct-Application-Id', [3]}, {restrict_connections, nodes},
        {string_decode, false}, {decode_format, map}, {strict_mbit, false},
        {application, [{alias, acct}, {dictionary, diameter_gen_acct_rfc6733}, {module, ?MODULE}, {request_errors, answer_3xxx}]}]),
    %% Else it throws requests away behind a cut, for three intervals (RFC 3539, Section 3.4.1: REOPEN).
    Watchdog = {watchdog_config, [{okay, 0}]},
    {ok, _} = diameter:add_transport(partner, {listen, [{transport_module, diameter_tcp}, Watchdog,
        {transport_config, [{reuseaddr, true}, {ip, {127,0,0,1}}, {port, list_to_integer(Port)}]}]}),
    {ok, _} = diameter:add_transport(partner, {connect, [{transport_module, diameter_tcp}, {connect_timer, 20}, Watchdog,
        {transport_config, [{raddr, {127,0,0,1}}, {rport, list_to_integer(OurPort)}]}]}),
    spawn_link(fun() -> ask(Host, 0, list_to_integer(Requests)) end),
    commands().

commands() ->
    case io:get_line("") of
        "cut\n" ->
            [exit(P, kill) || C <- diameter:service_info(partner, connections), {port, L} <- C, {owner, P} <- L],
            commands();
        _ -> halt()
    end.

ask(_, N, N) -> io:format("done~n");
ask(Host, N, All) ->
    ACR = ['ACR' | #{'Session-Id' => Host ++ ";1;" ++ integer_to_list(N), 'Origin-Host' => Host, 'Origin-Realm' => "partner.example",
        'Destination-Realm' => "visited.example", 'Accounting-Record-Type' => 1, 'Accounting-Record-Number' => 0,
        'Acct-Application-Id' => 3}],
    case diameter:call(partner, acct, ACR, [{timeout, 2000}]) of
        2001 -> ask(Host, N + 1, All);
        _ -> timer:sleep(20), ask(Host, N, All)
    end.

handle_request(#diameter_packet{msg = ['ACR' | M], errors = []}, _, _) ->
    #{'Session-Id' := Id, 'Accounting-Record-Type' := Type, 'Accounting-Record-Number' := Number} = M,
    io:format("acr ~s ~p~n", [Id, Number]),
    {reply, ['ACA' | #{'Session-Id' => Id, 'Result-Code' => 2001, 'Origin-Host' => diameter:service_info(partner, 'Origin-Host'),
        'Origin-Realm' => "partner.example", 'Accounting-Record-Type' => Type, 'Accounting-Record-Number' => Number, 'Acct-Application-Id' => 3}]};
handle_request(#diameter_packet{errors = E}, _, _) ->
    io:format("refused ~p~n", [E]),
    {answer_message, 5012}.

peer_up(_, _, S) -> io:format("up~n"), S.
peer_down(_, _, S) -> io:format("down~n"), S.
pick_peer([Peer | _], _, _, _) -> {ok, Peer};
pick_peer([], _, _, _) -> false.
prepare_request(#diameter_packet{msg = M}, _, _) -> {send, M}.
prepare_retransmit(P, _, _) -> {send, P}.
handle_answer(#diameter_packet{msg = ['ACA' | #{'Result-Code' := R}]}, _, _, _) -> R;
handle_answer(#diameter_packet{msg = M}, _, _, _) -> {failed, M}.
handle_error(Why, _, _, _) -> {error, Why}.

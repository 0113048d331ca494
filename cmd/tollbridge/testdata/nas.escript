#!/usr/bin/env escript
%% An access server on Erlang/OTP's diameter, with its dictionary of RFC 4005,
%% which is to be found as module rfc4005_nas.
%% usage: nas.escript PORT SECONDS USER=ADDRESS...
%%   Connects to the server at 127.0.0.1:PORT and tells of a session of each
%%   user that began so many seconds ago; an ADDRESS is the hexadecimal data of a
%%   Framed-IP-Address or Framed-IPv6-Prefix AVP. Prints a line for each answer,
%%   "aca RESULT", and each request, "asr SESSION" or "rar SESSION TYPE".
-module(access_server).
-mode(compile).
-export([main/1, peer_up/3, peer_down/3, pick_peer/4, prepare_request/3, prepare_retransmit/3, handle_answer/4, handle_error/4, handle_request/3]).
-record(diameter_packet, {header, avps, msg, bin, errors = [], transport_data}).

main([Port, Seconds | Sessions]) ->
    ok = diameter:start(),
    true = diameter:subscribe(nas),
    ok = diameter:start_service(nas, [
        {'Origin-Host', "bng.isp.example"}, {'Origin-Realm', "isp.example"}, {'Vendor-Id', 0}, {'Product-Name', "nas"},
        {'Host-IP-Address', [{127,0,0,1}]}, {'Auth-Application-Id', [1]}, {'Acct-Application-Id', [1]},
        {string_decode, false}, {decode_format, map}, {strict_mbit, true},
        {application, [{alias, nas}, {dictionary, rfc4005_nas}, {module, ?MODULE}, {request_errors, answer_3xxx}, {answer_errors, callback}]}]),
    {ok, _} = diameter:add_transport(nas, {connect, [{transport_module, diameter_tcp},
        {transport_config, [{raddr, {127,0,0,1}}, {rport, list_to_integer(Port)}]}]}),
    receive {diameter_event, nas, Up} when element(1, Up) =:= up -> ok end,
    lists:foreach(fun({N, S}) -> tell(N, list_to_integer(Seconds), string:split(S, "=")) end, lists:enumerate(Sessions)),
    receive never -> ok end.

tell(N, Seconds, [User, Hex]) ->
    Data = binary:decode_hex(list_to_binary(Hex)),
    Address = case byte_size(Data) of
        4 -> #{'Framed-IP-Address' => [Data]};
        _ -> #{'Framed-IPv6-Prefix' => [Data]}
    end,
    ['ACA' | #{'Result-Code' := Result}] = diameter:call(nas, nas, ['ACR' | Address#{
        'Session-Id' => "bng.isp.example;1;" ++ integer_to_list(N), 'Destination-Realm' => "isp.example",
        'Accounting-Record-Type' => 3, 'Accounting-Record-Number' => 1, 'Acct-Application-Id' => 1,
        'User-Name' => [User], 'Acct-Session-Time' => [Seconds]}], []),
    io:format("aca ~p~n", [Result]).

handle_request(#diameter_packet{errors = [E | _]}, _, _) ->
    io:format("refused ~p~n", [E]),
    {answer_message, 5012};
handle_request(#diameter_packet{msg = ['ASR' | #{'Session-Id' := Id}]}, _, _) ->
    io:format("asr ~s~n", [Id]),
    {reply, ['ASA' | answer(Id, 2001)]};
handle_request(#diameter_packet{msg = ['RAR' | #{'Session-Id' := Id, 'Re-Auth-Request-Type' := Type}]}, _, _) ->
    io:format("rar ~s ~p~n", [Id, Type]),
    {reply, ['RAA' | answer(Id, 2002)]}. % an AA-Request is to follow

answer(Id, Result) ->
    #{'Session-Id' => Id, 'Result-Code' => Result, 'Origin-Host' => "bng.isp.example", 'Origin-Realm' => "isp.example"}.

peer_up(_, _, S) -> S.
peer_down(_, _, S) -> S.
pick_peer([Peer | _], _, _, _) -> {ok, Peer}.
prepare_request(#diameter_packet{msg = [Name | Avps]}, _, _) ->
    {send, [Name | Avps#{'Origin-Host' => "bng.isp.example", 'Origin-Realm' => "isp.example"}]}.
prepare_retransmit(_, _, _) -> discard.
handle_answer(#diameter_packet{msg = Msg, errors = Errors}, _, _, _) ->
    [io:format("refused ~p~n", [E]) || E <- Errors],
    Msg.
handle_error(Reason, _, _, _) -> {error, Reason}.

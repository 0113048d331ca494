#!/usr/bin/env escript
%% A credit-control server on Erlang/OTP's diameter, with its dictionary of RFC
%% 4006, which is to be found as module rfc4006_cc.
%% usage: credit.escript BALANCE QUOTA
%%   Every user has so many octets, and is granted so many at a time. Prints
%%   "port PORT" when it is ready, and a line for each request that is no copy:
%%   SESSION TYPE NUMBER USER USED RESULT, where a refund is a negative amount.
-module(credit_server).
-mode(compile).
-export([main/1, peer_up/3, peer_down/3, pick_peer/4, prepare_request/3, prepare_retransmit/3, handle_answer/4, handle_error/4, handle_request/3]).
-record(diameter_packet, {header, avps, msg, bin, errors = [], transport_data}).

main([Balance, Quota]) ->
    ets:new(book, [named_table, public]),
    ets:insert(book, [{quota, list_to_integer(Quota)}, {balance, list_to_integer(Balance)}]),
    ok = diameter:start(),
    ok = diameter:start_service(credit, [
        {'Origin-Host', "ocs.home.example"}, {'Origin-Realm', "home.example"}, {'Vendor-Id', 0}, {'Product-Name', "credit"},
        {'Host-IP-Address', [{127,0,0,1}]}, {'Auth-Application-Id', [4]}, {restrict_connections, false},
        {string_decode, false}, {decode_format, map}, {strict_mbit, true},
        {application, [{alias, credit}, {dictionary, rfc4006_cc}, {module, ?MODULE}, {request_errors, answer_3xxx}]}]),
    {ok, Ref} = diameter:add_transport(credit, {listen, [{transport_module, diameter_tcp},
        {transport_config, [{reuseaddr, true}, {ip, {127,0,0,1}}, {port, 0}]}]}),
    io:format("port ~p~n", [port(Ref)]),
    receive never -> ok end.

port(Ref) ->
    case [N || {listen, N, _} <- diameter_tcp:ports(Ref)] of
        [N | _] -> N;
        [] -> timer:sleep(10), port(Ref)
    end.

handle_request(#diameter_packet{errors = [E | _]}, _, _) ->
    io:format("refused ~p~n", [E]),
    {answer_message, 5012};
handle_request(#diameter_packet{msg = ['CCR' | M]}, _, _) ->
    #{'Session-Id' := Id, 'CC-Request-Type' := Type, 'CC-Request-Number' := Number, 'User-Name' := [User]} = M,
    Services = maps:get('Multiple-Services-Credit-Control', M, []),
    Result = case ets:insert_new(book, {{Id, Number}, Type}) of
        false -> 2001;
        true -> first(Id, Type, Number, User, M, Services)
    end,
    Answer = #{'Session-Id' => Id, 'Result-Code' => Result, 'Origin-Host' => "ocs.home.example", 'Origin-Realm' => "home.example",
        'Auth-Application-Id' => 4, 'CC-Request-Type' => Type, 'CC-Request-Number' => Number},
    Wanted = [S || S <- Services, maps:get('Requested-Service-Unit', S, []) =/= []],
    Granted = case Type of 4 -> []; _ -> [grant(User, S) || S <- Wanted] end,
    {reply, ['CCA' | Answer#{'Multiple-Services-Credit-Control' => Granted}]}.

first(Id, Type, Number, User, M, Services) ->
    Sum = lists:sum([octets(U) || S <- Services, U <- maps:get(case Type of 4 -> 'Requested-Service-Unit'; _ -> 'Used-Service-Unit' end, S, [])]),
    Used = case maps:get('Requested-Action', M, []) of [1] -> -Sum; _ -> Sum end,
    Known = Type =:= 1 orelse Type =:= 4 orelse ets:member(book, {open, Id}),
    Type =:= 1 andalso ets:insert(book, {{open, Id}}),
    Type =:= 3 andalso ets:delete(book, {open, Id}),
    Result = case Known of true -> ets:update_counter(book, {debited, User}, {2, Used}, {{debited, User}, 0}), 2001; false -> 5002 end,
    io:format("~s ~p ~p ~s ~p ~p~n", [Id, Type, Number, User, Used, Result]),
    Result.

octets(U) -> case maps:get('CC-Total-Octets', U, []) of [N] -> N; [] -> 0 end.

grant(User, S) ->
    [{_, Quota}] = ets:lookup(book, quota),
    [{_, Balance}] = ets:lookup(book, balance),
    Debited = case ets:lookup(book, {debited, User}) of [{_, D}] -> D; [] -> 0 end,
    Left = max(0, Balance - Debited),
    Base = maps:with(['Rating-Group'], S),
    if Left =:= 0 -> Base#{'Result-Code' => 4012};
       Left < Quota -> Base#{'Granted-Service-Unit' => #{'CC-Total-Octets' => Left}, 'Final-Unit-Indication' => #{'Final-Unit-Action' => 0}};
       true -> Base#{'Granted-Service-Unit' => #{'CC-Total-Octets' => Quota}, 'Validity-Time' => 3600}
    end.

peer_up(_, _, S) -> S.
peer_down(_, _, S) -> S.
pick_peer(_, _, _, _) -> false.
prepare_request(_, _, _) -> discard.
prepare_retransmit(_, _, _) -> discard.
handle_answer(_, _, _, _) -> ok.
handle_error(_, _, _, _) -> ok.

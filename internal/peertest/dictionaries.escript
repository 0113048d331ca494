#!/usr/bin/env escript
%% Compiles Diameter dictionaries that Erlang/OTP's diameter has as examples.
%% usage: dictionaries.escript FOLDER NAME...
%%   Each NAME may inherit those before it. Their modules go to FOLDER. Ends
%%   with status 2 where a dictionary is not installed.
-mode(compile).

main([Folder | Names]) ->
    true = code:add_patha(Folder),
    Examples = filename:join([code:lib_dir(diameter), "examples", "dict"]),
    lists:foreach(fun(Name) -> dictionary(Folder, filename:join(Examples, Name ++ ".dia"), Name) end, Names).

dictionary(Folder, File, Name) ->
    filelib:is_regular(File) orelse begin io:format("~s is not there", [File]), halt(2) end,
    %% The examples are for any version of the base protocol's dictionary.
    {ok, [Forms]} = diameter_make:codec(File, [forms, return, {name, Name}, {prefix, Name}, {inherits, "common/diameter_gen_base_rfc6733"}]),
    {ok, _, Beam} = compile:forms(Forms, [return_errors]),
    ok = file:write_file(filename:join(Folder, Name ++ ".beam"), Beam).

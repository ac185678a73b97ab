%% Evaluated before RabbitMQ boots, by the run that records what a node loads.
%%
%% RabbitMQ looks for attributes of its own in all modules of all applications, and so loads every one of them.
%% Applications of Erlang's own have none: told that they consist of no modules, they are loaded as they are used.

Read = fun(App) ->
    case code:where_is_file(atom_to_list(App) ++ ".app") of
        non_existing -> none;
        File ->
            case file:consult(File) of
                {ok, [{application, App, Keys}]} -> {App, File, Keys};
                _ -> none
            end
    end
end,

Needed = fun Needed([], Seen) -> Seen;
             Needed([App | Rest], Seen) ->
                 case lists:keymember(App, 1, Seen) orelse Read(App) of
                     true -> Needed(Rest, Seen);
                     none -> Needed(Rest, Seen);
                     {App, _, Keys} = Spec ->
                         Apps = proplists:get_value(applications, Keys, [])
                             ++ proplists:get_value(optional_applications, Keys, []),
                         Needed(Apps ++ Rest, [Spec | Seen])
                 end
         end,

[application:load({application, App, lists:keystore(modules, 1, Keys, {modules, []})})
 || {App, File, Keys} <- Needed([rabbit], []), lists:prefix(code:lib_dir(), File)].

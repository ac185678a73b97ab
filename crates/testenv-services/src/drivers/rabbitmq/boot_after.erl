%% Evaluated when RabbitMQ has booted: writes a boot file with which the next node loads at once what this one has
%% loaded by and by, which takes it a fraction of the time.

{ok, [[Out]]} = init:get_argument(testenv_boot),
{ok, Standard} = file:read_file(filename:join([code:root_dir(), "bin", "start_sasl.boot"])),
{script, Id, Commands} = binary_to_term(Standard),

%% Modules loaded before the kernel is, and so loaded here too, together with those from the standard boot file.
{Early, Late} = lists:splitwith(fun(Command) -> Command =/= {kernel_load_completed} end, Commands),
Known = erlang:pre_loaded() ++ lists:append([Modules || {primLoad, Modules} <- Early]),

%% A module that runs code of its own when it is loaded has to wait until there is a kernel.
Loads = fun(Module, File) ->
    filename:extension(File) =:= ".beam" andalso
        case file:read_file(File) of
            {ok, Beam} -> element(1, code:prepare_loading([{Module, File, Beam}])) =:= ok;
            _ -> false
        end
end,
Modules = [{filename:dirname(File), Module}
           || {Module, File} <- code:all_loaded(), is_list(File),
              not lists:member(Module, Known), Loads(Module, File)],

%% Many at a time, since every load copies tables of all that is loaded; not all, since those being loaded take memory
%% that is not given back.
Batches = fun Batches(Some) ->
    case length(Some) =< 16 of
        true -> [{primLoad, Some}];
        false -> {Batch, Rest} = lists:split(16, Some), [{primLoad, Batch} | Batches(Rest)]
    end
end,
Preload = lists:append([[{path, [Dir]} | Batches([Module || {In, Module} <- Modules, In =:= Dir])]
                        || Dir <- lists:usort([Dir || {Dir, _} <- Modules])]),

%% Applications of Erlang's own, with no modules, as the node that is running has them.
Empty = fun({application, App, Keys}) ->
    {application, App, lists:keystore(modules, 1, Keys, {modules, []})}
end,
Specs = [Empty(Spec)
         || {App, _, _} <- application:loaded_applications(),
            File <- [code:where_is_file(atom_to_list(App) ++ ".app")], is_list(File),
            lists:prefix(code:lib_dir(), File), not lists:member(App, [kernel, stdlib, sasl]),
            {ok, [Spec]} <- [file:consult(File)]],
Emptied = [case Command of
               {kernelProcess, Name, {application_controller, start, [Kernel]}} ->
                   {kernelProcess, Name, {application_controller, start, [Empty(Kernel)]}};
               {apply, {application, load, [Spec]}} -> {apply, {application, load, [Empty(Spec)]}};
               _ -> Command
           end || Command <- Late],
{Kernel, Rest} = lists:splitwith(fun(Command) -> Command =/= {progress, init_kernel_started} end, Emptied),
Load = [{apply, {application, load, [Spec]}} || Spec <- Specs],

ok = file:write_file(Out, term_to_binary({script, Id, Early ++ Preload ++ Kernel ++ Load ++ Rest})),
erlang:halt(0).

%% The Erlang side of the bench: the same questions, asked of OTP's own behaviours.
%% Lines in: "question key=number ..."; lines out: "key=number ...".
-module(otp).
-behaviour(gen_server).
-export([main/0, start_link/1, init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

main() ->
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    find_scheduler(),
    loop().

loop() ->
    case io:get_line("") of
        eof -> halt(0);
        Line ->
            [Question | Words] = string:lexemes(string:trim(Line), " "),
            Params = maps:from_list([pair(Word) || Word <- Words]),
            io:put_chars([answer(list_to_atom(Question), Params), "\n"]),
            forget_exits(),
            loop()
    end.

forget_exits() -> receive {'EXIT', _, _} -> forget_exits() after 0 -> ok end.

pair(Word) ->
    [Key, Value] = string:lexemes(Word, "="),
    {list_to_atom(Key), list_to_integer(Value)}.

answer(Question, Params) ->
    try question(Question, Params) of
        Figures -> lists:join(" ", [io_lib:format("~s=~.6f", [Key, float(Value)]) || {Key, Value} <- Figures])
    catch
        Class:Reason -> io_lib:format("error: ~0p", [{Class, Reason}])
    end.

%% Time one function in a process of its own, with a fresh heap; returns microseconds {by the wall, of the processor}.
timed(Function) ->
    Me = self(),
    Pid = spawn_link(fun() ->
        Began = now_us(),
        Function(),
        Me ! {took, self(), since(Began)}
    end),
    receive {took, Pid, Took} -> Took end.

now_us() -> {erlang:monotonic_time(nanosecond) / 1000, processor_us()}.

since({Wall, Processor}) ->
    {WallNow, ProcessorNow} = now_us(),
    {WallNow - Wall, ProcessorNow - Processor}.

per({Wall, Processor}, Operations) -> [{us, Wall / Operations}, {cpu_us, Processor / Operations}].

%% The processor time of the one scheduler thread, as Linux counts it.
processor_us() ->
    {ok, Text} = file:read_file(persistent_term:get(scheduler_file)),
    [Ns | _] = binary:split(Text, <<" ">>),
    binary_to_integer(Ns) / 1000.

find_scheduler() ->
    {ok, Threads} = file:list_dir("/proc/self/task"),
    [Found | _] = [Folder || Thread <- Threads, Folder <- ["/proc/self/task/" ++ Thread],
                             {ok, Name} <- [file:read_file(Folder ++ "/comm")], is_scheduler(Name)],
    persistent_term:put(scheduler_file, Found ++ "/schedstat").

is_scheduler(Name) -> lists:member(string:trim(Name), [<<"1_scheduler">>, <<"erts_sched_1">>]).

%% -- questions

question(ask, #{n := N, askers := Askers}) ->
    {ok, Server} = start_link(echo),
    Each = N div Askers,
    Took = timed(fun() ->
        Me = self(),
        Pids = [spawn_link(fun() -> ask(Server, Each), Me ! {done, self()} end) || _ <- lists:seq(1, Askers)],
        [receive {done, Pid} -> ok end || Pid <- Pids]
    end),
    gen_server:stop(Server),
    per(Took, Each * Askers);

question(tell, #{n := N, burst := Burst}) ->
    {ok, Server} = start_link(echo),
    Bursts = N div Burst,
    Took = timed(fun() ->
        times(Bursts, fun() -> times(Burst, fun() -> gen_server:cast(Server, hello) end), gen_server:call(Server, flush) end)
    end),
    gen_server:stop(Server),
    per(Took, Bursts * Burst);

question(start, #{n := N}) ->
    {ok, Boss} = start_boss(dynamic),
    Took = timed(fun() -> times(N, fun() -> {ok, _} = supervisor:start_child(Boss, []) end) end),
    stop_boss(Boss),
    per(Took, N);

question(restart, #{crashes := Crashes, before := Before}) ->
    case whereis(late) of
        undefined ->
            {ok, Boss, 1} = boss_with(1),
            register(late, Boss),
            crashes(Before);
        _ -> ok
    end,
    per(crashes(Crashes), Crashes);

question(restart, #{crashes := Crashes, siblings := Siblings, batches := Batches}) ->
    Took = [begin
        {ok, Boss, Siblings} = boss_with(Siblings),
        T = crashes(Crashes),
        stop_boss(Boss),
        T
    end || _ <- lists:seq(1, Batches)],
    per({lists:sum([Wall || {Wall, _} <- Took]), lists:sum([Used || {_, Used} <- Took])}, Crashes * Batches);

question(memory, #{n := N}) ->
    {ok, Boss} = start_boss(dynamic),
    erlang:garbage_collect(Boss),
    Before = erlang:memory(total),
    Pids = [begin {ok, Pid} = supervisor:start_child(Boss, []), Pid end || _ <- lists:seq(1, N)],
    erlang:garbage_collect(Boss),
    Idle = erlang:memory(total),
    [gen_server:call(Pid, hello) || Pid <- Pids],
    After = erlang:memory(total),
    stop_boss(Boss),
    [{idle_bytes, (Idle - Before) / N}, {used_bytes, (After - Before) / N}];

question(ring, #{actors := Actors, n := Hops}) ->
    Me = self(),
    [First | _] = Pids = [begin {ok, Pid} = start_link({ring, Me}), Pid end || _ <- lists:seq(1, Actors)],
    [gen_server:call(Pid, {next, Next}) || {Pid, Next} <- lists:zip(Pids, tl(Pids) ++ [First])],
    Took = timed(fun() -> gen_server:cast(First, {token, Hops, self()}), receive arrived -> ok end end),
    [gen_server:stop(Pid) || Pid <- Pids],
    per(Took, Hops);

question(broadcast, #{actors := Actors}) ->
    Pids = [begin {ok, Pid} = start_link(echo), Pid end || _ <- lists:seq(1, Actors)],
    {ok, Collector} = start_link({collect, Actors}),
    Took = timed(fun() ->
        [gen_server:cast(Pid, {tell_back, Collector}) || Pid <- Pids],
        gen_server:call(Collector, all, infinity)
    end),
    [gen_server:stop(Pid) || Pid <- [Collector | Pids]],
    per(Took, Actors);

question(monitor, #{actors := Actors}) ->
    Pids = [begin {ok, Pid} = gen_server:start(?MODULE, echo, []), Pid end || _ <- lists:seq(1, Actors)],
    Took = timed(fun() ->
        Refs = [erlang:monitor(process, Pid) || Pid <- Pids],
        [exit(Pid, kill) || Pid <- Pids],
        [receive {'DOWN', Ref, _, _, _} -> ok end || Ref <- Refs]
    end),
    per(Took, Actors).

ask(_, 0) -> ok;
ask(Server, N) -> hello = gen_server:call(Server, hello), ask(Server, N - 1).

times(0, _) -> ok;
times(N, Function) -> Function(), times(N - 1, Function).

%% Crash the child that reports each of its starts to the process registered as tester, so many times in a row.
crashes(Crashes) ->
    Target = receive {up, Pid} -> Pid after 0 -> get(target) end,
    {Took, Last} = crash_in_a_row(Target, Crashes),
    put(target, Last),
    Took.

crash_in_a_row(First, Crashes) ->
    Warm = crash(First, 1),
    Began = now_us(),
    Last = crash(Warm, Crashes),
    {since(Began), Last}.

crash(Pid, 0) -> Pid;
crash(Pid, N) ->
    gen_server:cast(Pid, crash),
    receive {up, Again} -> crash(Again, N - 1) end.

%% -- the server

start_link(Arg) -> gen_server:start_link(?MODULE, Arg, []).

init({boss, Flags, Children}) -> {ok, {Flags, Children}};
init({reporting, Tester} = State) -> Tester ! {up, self()}, {ok, State};
init(State) -> {ok, State}.

handle_call({next, Next}, _From, {ring, _}) -> {reply, ok, {ring, Next}};
handle_call(all, From, {collect, 0}) -> gen_server:reply(From, ok), {noreply, done};
handle_call(all, From, {collect, Left}) -> {noreply, {collect, Left, From}};
handle_call(Message, _From, State) -> {reply, Message, State}.

handle_cast({token, 0, Tester}, State) -> Tester ! arrived, {noreply, State};
handle_cast({token, Hops, Tester}, {ring, Next} = State) -> gen_server:cast(Next, {token, Hops - 1, Tester}), {noreply, State};
handle_cast({tell_back, Collector}, State) -> gen_server:cast(Collector, back), {noreply, State};
handle_cast(back, {collect, 1, From}) -> gen_server:reply(From, ok), {noreply, done};
handle_cast(back, {collect, Left, From}) -> {noreply, {collect, Left - 1, From}};
handle_cast(back, {collect, Left}) -> {noreply, {collect, Left - 1}};
handle_cast(crash, _State) -> error(crashed);
handle_cast(_Message, State) -> {noreply, State}.

handle_info(_Message, State) -> {noreply, State}.

terminate(_Reason, _State) -> ok.

%% -- supervisors

start_boss(dynamic) ->
    Child = #{id => child, start => {?MODULE, start_link, [echo]}, shutdown => brutal_kill},
    supervisor:start_link(?MODULE, {boss, #{strategy => simple_one_for_one, intensity => 1000000, period => 3600}, [Child]});
start_boss(Children) ->
    supervisor:start_link(?MODULE, {boss, #{strategy => one_for_one, intensity => 1000000, period => 3600}, Children}).

boss_with(Siblings) ->
    %% The time to find a child depends on where its id falls in a map, so each supervisor gets another one.
    Report = #{id => {target, erlang:unique_integer()}, start => {?MODULE, start_link, [{reporting, self()}]}, shutdown => brutal_kill},
    Others = [#{id => Id, start => {?MODULE, start_link, [echo]}, shutdown => brutal_kill} || Id <- lists:seq(1, Siblings)],
    {ok, Boss} = start_boss([Report | Others]),
    {ok, Boss, Siblings}.

stop_boss(Boss) ->
    Ref = erlang:monitor(process, Boss),
    exit(Boss, shutdown),
    receive {'DOWN', Ref, _, _, _} -> ok end,
    receive {'EXIT', Boss, _} -> ok after 0 -> ok end,
    drop_ups().

drop_ups() -> receive {up, _} -> drop_ups() after 0 -> ok end.

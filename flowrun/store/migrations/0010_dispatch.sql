-- Dispatching by a role that may write no table: see flowrun/store/granted.py and docs/security.md. Whoever may only dispatch
-- ties together what it dispatches in one call, and nothing else; whoever may write the tables (workers, the owner) writes
-- them itself and pays nothing for this.

-- The same statement as sql/remove_unstarted.sql (a test compares them).
create function flowrun.remove_unstarted(uuid[]) returns setof uuid
language sql
set search_path = pg_catalog, pg_temp
as $remove_unstarted$
with part as materialized (
    select j.id, j.queue, j.priority, u.id as whole
    from unnest($1::uuid[]) as u (id)
    cross join lateral (select id, queue, priority from flowrun.jobs where jobs.id = u.id offset 0) j
    union all
    select j.id, j.queue, j.priority, u.id
    from unnest($1::uuid[]) as u (id)
    cross join lateral (select id from flowrun.flows where flows.root_id = u.id offset 0) f
    cross join lateral (select id, queue, priority from flowrun.jobs where jobs.flow_id = f.id offset 0) j
),
timed as materialized (
    select s.id
    from (select id from part order by id) p
    cross join lateral (select id from flowrun.scheduled where id = p.id and attempt = 0 for update) s
),
now_ready as materialized (
    select r.id, r.place
    from (select id, queue, priority from part order by id) p
    cross join lateral (
        select id, ready.ctid as place from flowrun.ready
        where queue = p.queue and priority = p.priority and ready.id = p.id and attempt = 0
        for update
    ) r
),
waiting as materialized (
    select b.id
    from (select id from part order by id) p
    cross join lateral (select id from flowrun.blocked where blocked.id = p.id for update) b
),
unstarted as materialized (
    select part.whole
    from part
    left join (select id from timed union all select id from now_ready union all select id from waiting) stands
        on stands.id = part.id
    group by part.whole
    having count(*) = count(stands.id)
),
gone as materialized (
    select part.id from part join unstarted on unstarted.whole = part.whole
),
a as (delete from flowrun.scheduled where id = any(array(select id from gone))),
b as (
    delete from flowrun.ready
    where ctid = any(array(select now_ready.place from now_ready join gone on gone.id = now_ready.id))
),
c as (delete from flowrun.blocked where id = any(array(select id from gone))),
d as (delete from flowrun.edges where parent_id = any(array(select id from gone))),
e as (delete from flowrun.deadlines where id = any(array(select id from gone))),
f as (delete from flowrun.cancels where id = any(array(select id from gone))),
g as (delete from flowrun.signals where root_id = any(array(select whole from unstarted))),
h as (delete from flowrun.flows where root_id = any(array(select whole from unstarted))),
i as (delete from flowrun.jobs where id = any(array(select id from gone)))
select whole from unstarted
$remove_unstarted$;
revoke execute on function flowrun.remove_unstarted(uuid[]) from public;

-- Writes jobs without a flow, or one flow.
--   plan: {"root": id of the outermost flow, or null, "jobs": [...], "flows": [...], "edges": [...], "blocked": [...],
--   "deadlines": [...], "keys": [...]}, each a list of objects with the names of columns. Jobs are in topological order.
-- Result: by id of a job or flow that was not written because its key is held: by whom.
-- All ids that are named are of jobs in the plan. Ids that are stored already are left as they are: sent again after an
-- ambiguous commit, it changes nothing. What waits for nothing is put in its place here, so that it stands in one only.
-- Locks: `keys` rows in order of scope and key; with "replace" those of remove_unstarted; else only what it inserts.
create function flowrun.dispatch(plan json) returns table (wanted uuid, holder uuid)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_nestloop = off  -- nothing is known of how long the lists are
set jit = off
as $dispatch$
declare
    caller constant text := coalesce(nullif(current_setting('role'), 'none'), session_user);
    only_workers constant text[] := '{failure, schedule, scheduled_for, before, lost, survived, unseen, role}';  -- in a job's options
    all_ids uuid[];
    all_flows uuid[];
    end_ids uuid[];
    end_flows uuid[];
    root uuid;
    written uuid[];
    taken uuid[] := '{}';
    kept uuid[] := '{}';
    bad uuid;
    why text;
    fresh bigint;
    one record;
    had uuid;
    held boolean;
    dispatcher text;
begin
    select coalesce(array_agg(j.id), '{}') into all_ids from json_to_recordset(plan -> 'jobs') as j (id uuid);
    select coalesce(array_agg(f.id), '{}') into all_flows from json_to_recordset(plan -> 'flows') as f (id uuid);
    root := plan ->> 'root';
    if (root is null) <> (cardinality(all_flows) = 0) or root is not null and root <> all(all_flows) then
        raise insufficient_privilege using message = format('role %s may only dispatch: flow %s is none of its flows', caller, root);
    end if;
    if (select count(distinct id) from unnest(all_ids) as u (id)) <> cardinality(all_ids) then
        raise insufficient_privilege using message = format('role %s may only dispatch: it names a job twice', caller);
    end if;

    select named.id into bad
    from (
        select unnest(array[e.parent_id, e.child_id]) as id
        from json_to_recordset(plan -> 'edges') as e (parent_id uuid, child_id uuid)
        union all
        select unnest(array(select jsonb_array_elements_text(e.test -> 'rivals'))::uuid[])
        from json_to_recordset(plan -> 'edges') as e (test jsonb) where e.test ? 'rivals'
        union all
        select b.id from json_to_recordset(plan -> 'blocked') as b (id uuid)
        union all
        select d.id from json_to_recordset(plan -> 'deadlines') as d (id uuid)
        union all
        select k.id from json_to_recordset(plan -> 'keys') as k (id uuid)
        union all
        select unnest(
            coalesce(j.sources, '{}') || coalesce(j.parents, '{}')
            || array_remove(
                array[(j.options ->> 'compensates')::uuid, (j.options ->> 'verdict')::uuid], null
            )
        )
        from json_to_recordset(plan -> 'jobs') as j (sources uuid[], parents uuid[], options jsonb)
    ) named
    where (named.id in (select unnest(all_ids))) is not true
    limit 1;
    if found then
        raise insufficient_privilege using message =
            format('role %s may only dispatch: what it dispatches may name jobs of the same dispatch, and %s is none', caller, bad);
    end if;

    select wrong.id, wrong.why into bad, why
    from (
        select
            j.id,
            case
                when coalesce(j.kind, 0) = 0 and (j.type like 'flowrun.%' or split_part(j.queue, chr(31), 1) = 'flowrun')
                    then 'its type or queue is flowrun''s own'
                when j.kind <> 0 and (j.queue <> 'flowrun' or j.type <> 'flowrun.' || (array['end', 'join', 'gate', 'sleep', 'map', 'verdict'])[j.kind])
                    then 'its type or queue is not that of its kind'
                when (coalesce(j.kind, 0) = 1) <> (j.id in (select unnest(all_flows)))
                    then 'a flow ends in one job of kind 1, which has its id'
                when (j.flow_id is null) <> (root is null or j.id = root) or j.flow_id is not null and j.flow_id not in (select unnest(all_flows))
                    then 'it belongs to a flow of another dispatch, or to none'
                when jsonb_typeof(j.options) <> 'object' or j.options ?| only_workers
                    then 'only workers write these options: ' || array_to_string(only_workers, ', ')
                when (j.delay between 0 and 100 * 366 * 86400.0) is false or (j.run_at between '0001-01-01' and '9999-12-31') is false
                    then 'its delay or its moment is out of range'
                when exists (
                    select from unnest(array[
                        j.options -> 'item', j.options -> 'on_failure', j.options #> '{item,options,on_failure}'
                    ]) as later (job)
                    where
                        later.job is not null
                        and (
                            later.job ->> 'type' like 'flowrun.%' or split_part(later.job ->> 'queue', chr(31), 1) = 'flowrun'
                            or jsonb_typeof(later.job -> 'options') not in ('object', 'null')
                            or later.job -> 'options' ?| (only_workers || '{compensates, verdict, item, dispatched_by}'::text[])
                        )
                ) or j.options #> '{on_failure,options}' ? 'on_failure' or j.options #> '{item,options,on_failure,options}' ? 'on_failure'
                    then 'what it makes later has a type, a queue or options that it may not have'
            end as why
        from json_to_recordset(plan -> 'jobs') as j (
            id uuid, flow_id uuid, kind smallint, queue text, type text, delay float8, run_at timestamptz, options jsonb
        )
    ) wrong
    where wrong.why is not null
    limit 1;
    if found then
        raise insufficient_privilege using message = format('role %s may only dispatch: job %s is refused: %s', caller, bad, why);
    end if;

    select e.child_id into bad
    from json_to_recordset(plan -> 'edges') as e (parent_id uuid, child_id uuid)
    join unnest(all_ids) with ordinality as p (id, place) on p.id = e.parent_id
    join unnest(all_ids) with ordinality as c (id, place) on c.id = e.child_id
    where p.place >= c.place
    limit 1;
    if found then
        raise insufficient_privilege using message = format('role %s may only dispatch: job %s waits for one that comes later', caller, bad);
    end if;

    select d.id into bad
    from json_to_recordset(plan -> 'deadlines') as d (id uuid, kind smallint, delay float8, due_at timestamptz)
    where (
        d.kind in (0, 1) and (d.kind = 1) = (d.id in (select unnest(all_flows)))
        and coalesce(d.due_at between '0001-01-01' and '9999-12-31', d.delay between 0 and 100 * 366 * 86400.0)
    ) is not true
    limit 1;
    if found then
        raise insufficient_privilege using message = format('role %s may only dispatch: the deadline of %s is of no such kind, or out of range', caller, bad);
    end if;

    if root is not null then
        select array_agg(j.id), array_agg(j.flow_id) into end_ids, end_flows
        from json_to_recordset(plan -> 'jobs') as j (id uuid, flow_id uuid, kind smallint) where j.kind = 1;
        -- Flows inside flows are a tree, as deep as the API allows: whoever walks down it comes to an end.
        with recursive inside (id, depth) as (
            select root, 0
            union
            select e.id, inside.depth + 1
            from inside
            join unnest(end_ids, end_flows) as e (id, flow_id) on e.flow_id = inside.id
            where inside.depth < 100
        )
        select count(*) into fresh from inside;
        if fresh <> cardinality(all_flows) or coalesce(cardinality(end_ids), 0) <> fresh then
            raise insufficient_privilege using message = format('role %s may only dispatch: flow %s is no tree of flows', caller, root);
        end if;
    end if;

    for one in
        select k.scope, k.key, k.id, k.on_conflict, k.ttl
        from json_to_recordset(plan -> 'keys') as k (scope text, key text, id uuid, on_conflict text, ttl float8)
        order by k.scope, k.key
    loop
        if not exists (
            select from json_to_recordset(plan -> 'jobs') as j (id uuid, type text)
            where root is null and j.id = one.id and one.scope = 'job:' || j.type
            union all
            select from json_to_recordset(plan -> 'flows') as f (id uuid, name text)
            where f.id = root and f.id = one.id and one.scope = 'flow:' || f.name
        ) then
            raise insufficient_privilege using message = format('role %s may only dispatch: %s has no key of scope %s', caller, one.id, one.scope);
        end if;
        loop
            insert into flowrun.keys (scope, key, id, expires_at)
            values (one.scope, one.key, one.id, clock_timestamp() + make_interval(secs => one.ttl))
            on conflict (scope, key) do nothing;
            if found then
                taken := taken || one.id;
                exit;
            end if;
            select
                k.id,
                case
                    when k.expires_at is null then exists (select from flowrun.jobs where jobs.id = k.id)
                    else k.expires_at > clock_timestamp()
                end
            into had, held
            from flowrun.keys k where k.scope = one.scope and k.key = one.key;
            continue when not found;
            exit when had = one.id;
            if held and one.on_conflict in ('replace', 'debounce') then
                perform from flowrun.keys k where k.scope = one.scope and k.key = one.key and k.id = had for update;
                continue when not found;
                select j.options ->> 'role' into dispatcher from flowrun.jobs j where j.id = had;
                if found and dispatcher is distinct from caller then
                    raise insufficient_privilege using message = format(
                        'role %s may only dispatch: key %L is held by a job or flow that another role dispatched, and it replaces its own', caller, one.key
                    );
                end if;
                -- Twice: a job that became due in between stood in neither place.
                perform from flowrun.remove_unstarted(array[had]);
                if not found then
                    perform from flowrun.remove_unstarted(array[had]);
                end if;
                held := not found and one.on_conflict = 'replace';
            end if;
            if held then
                kept := kept || one.id;
                wanted := one.id;
                holder := had;
                return next;
                exit;
            end if;
            update flowrun.keys k set id = one.id, expires_at = clock_timestamp() + make_interval(secs => one.ttl)
            where k.scope = one.scope and k.key = one.key and k.id = had;
            if found then
                taken := taken || one.id;
                exit;
            end if;
        end loop;
    end loop;

    if root is not null then
        if root = any(kept) then
            return;
        end if;
        with added as (
            insert into flowrun.flows (id, root_id, name, tags)
            select f.id, root, f.name, coalesce(f.tags, '{}')
            from json_to_recordset(plan -> 'flows') as f (id uuid, name text, tags text[])
            on conflict (id) do nothing
            returning flows.id
        )
        select count(*) into fresh from added;
        if fresh not in (0, cardinality(all_flows)) then
            raise insufficient_privilege using message = format('role %s may only dispatch: a flow inside flow %s is stored already', caller, root);
        end if;
    end if;
    with added as (
        insert into flowrun.jobs (
            id, flow_id, kind, name, queue, type, args, sources, bindings, priority, optional, delay, run_at, options,
            parents
        )
        select
            j.id, j.flow_id, coalesce(j.kind, 0), j.name, j.queue, j.type, j.args, j.sources, j.bindings, j.priority,
            coalesce(j.optional, false), j.delay, j.run_at,
            -- What dispatched it is known of handlers only; who did counts for "replace".
            case
                when j.id in (select k.id from json_to_recordset(plan -> 'keys') as k (id uuid))
                    then coalesce(j.options, '{}') - 'dispatched_by' || jsonb_build_object('role', caller)
                when j.options ? 'dispatched_by' then nullif(j.options - 'dispatched_by', '{}')
                else j.options
            end,
            j.parents
        from json_to_recordset(plan -> 'jobs') as j (
            id uuid, flow_id uuid, kind smallint, name text, queue text, type text, args jsonb, sources uuid[],
            bindings jsonb, priority smallint, optional boolean, delay float8, run_at timestamptz, options jsonb,
            parents uuid[]
        )
        where (root is null or fresh > 0) and (j.id in (select unnest(kept))) is not true
        on conflict (id) do nothing
        returning jobs.id
    )
    select coalesce(array_agg(added.id), '{}') into written from added;
    -- A key is never another's: not that of what was stored before.
    delete from flowrun.keys k
    where
        (k.scope, k.key) in (select g.scope, g.key from json_to_recordset(plan -> 'keys') as g (scope text, key text, id uuid) where g.id = any(taken))
        and (k.id in (select unnest(written))) is not true;
    if root is not null and cardinality(written) not in (0, cardinality(all_ids)) or root is not null and fresh > 0 and cardinality(written) = 0 then
        raise insufficient_privilege using message = format('role %s may only dispatch: a job of flow %s is stored already', caller, root);
    end if;
    if cardinality(written) = 0 then
        return;
    end if;

    insert into flowrun.edges (parent_id, child_id, condition, test)
    select e.parent_id, e.child_id, e.condition, e.test
    from json_to_recordset(plan -> 'edges') as e (parent_id uuid, child_id uuid, condition smallint, test jsonb)
    where root is not null;
    insert into flowrun.blocked (id, need, open)
    select b.id, b.need, b.open from json_to_recordset(plan -> 'blocked') as b (id uuid, need integer, open integer)
    where root is not null;
    with free as materialized (
        select j.*
        from json_to_recordset(plan -> 'jobs') as j (id uuid, queue text, type text, priority smallint, delay float8, run_at timestamptz)
        where
            j.id in (select unnest(written))
            and (root is null or j.id not in (select b.id from json_to_recordset(plan -> 'blocked') as b (id uuid)))
    ),
    timed as (
        insert into flowrun.scheduled (id, run_at)
        select free.id, greatest(now() + make_interval(secs => free.delay), free.run_at) from free
        where free.delay is not null or free.run_at is not null
    )
    insert into flowrun.ready (queue, priority, id, type)
    select free.queue, free.priority, free.id, free.type from free
    where free.delay is null and free.run_at is null;
    insert into flowrun.deadlines (id, kind, due_at)
    select d.id, d.kind, coalesce(d.due_at, now() + make_interval(secs => d.delay))
    from json_to_recordset(plan -> 'deadlines') as d (id uuid, kind smallint, delay float8, due_at timestamptz)
    where d.id in (select unnest(written));
end
$dispatch$;
revoke execute on function flowrun.dispatch(json) from public;

-- The nodes of the flow that has a key, for whoever dispatches it again: name, id, type, as in sql/flow_names.sql.
create function flowrun.nodes_of(scope text, key text, flow uuid) returns table (name text, id uuid, type text)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $nodes_of$
    with recursive inside (id) as (
        select k.id from flowrun.keys k
        where k.scope = nodes_of.scope and k.key = nodes_of.key and k.id = nodes_of.flow
        union all
        select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
    )
    select j.name, j.id, j.type
    from inside join flowrun.jobs j on j.flow_id = inside.id
    where j.kind <> 2
    order by j.id
$nodes_of$;
revoke execute on function flowrun.nodes_of(text, text, uuid) from public;

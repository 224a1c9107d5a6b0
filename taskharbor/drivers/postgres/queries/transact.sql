-- begin_attempt: now, id, fence -> verdict, number of the transaction
SELECT verdict, xact::text FROM th.begin_attempt(%(now)s, %(id)s, %(fence)s);

-- check_constraints: now, instead of in the commit
SET CONSTRAINTS ALL IMMEDIATE;

-- settle_attempt: now, xact, id, fence, result; raises unless it applied
SELECT th.settle_attempt(%(now)s, %(xact)s::xid8, %(id)s, %(fence)s, %(result)s);

-- transaction_now: -> the number of the transaction, NULL for one that has written nothing
SELECT pg_current_xact_id_if_assigned()::text;

-- outcome_of: xact -> committed or aborted
SELECT pg_xact_status(%(xact)s::xid8);

-- leave_no_trace: what a task may have set for the session; all of DISCARD ALL but for plans
SET SESSION AUTHORIZATION DEFAULT;
RESET ALL;
CLOSE ALL;
UNLISTEN *;
SELECT pg_advisory_unlock_all();
DISCARD TEMP;
DISCARD SEQUENCES;

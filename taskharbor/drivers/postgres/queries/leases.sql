-- held: holder -> its reservations, expired ones too
SELECT * FROM th.reservations WHERE holder = %(holder)s ORDER BY fence;

-- retire: now, holder, seconds -> its reservations
SELECT * FROM th.retire(%(now)s, %(holder)s, %(seconds)s);

-- expired: now, limit -> reservations past their expiry, the oldest first
SELECT * FROM th.expired(%(now)s, %(limit)s);

-- extend: now, ids, fences, progress, saved, seconds -> verdict, expiry, cancel asked
SELECT * FROM th.extend(%(now)s, %(ids)s::text[], %(fences)s::bigint[], %(progress)s::bytea[],
    %(saved)s::bytea[], %(seconds)s);

-- lead: now, name, holder, seconds -> number, expiry; NULLs while another leads
SELECT * FROM th.lead(%(now)s, %(name)s, %(holder)s, %(seconds)s);

-- Arguments: an order's five fields, the fence of the writing attempt.
-- Writing a row twice leaves one row, and an attempt that lost its lease (a smaller fence) can't
-- overwrite what a later one wrote: at-least-once jobs, exactly-once rows.
INSERT INTO orders (order_id, customer_key, country, placed_on, cents, fence)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (order_id) DO UPDATE SET
    customer_key = excluded.customer_key,
    country      = excluded.country,
    placed_on    = excluded.placed_on,
    cents        = excluded.cents,
    fence        = excluded.fence,
    writes       = writes + 1
WHERE excluded.fence >= orders.fence;

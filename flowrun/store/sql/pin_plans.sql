-- Until the transaction ends, only indexes serve: what is pruned is a small part of large tables, and their statistics
-- may be of any age. (Of the transaction, not of the session: that a pooler hands on.)
select
    set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
    set_config('enable_sort', 'off', true), set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)

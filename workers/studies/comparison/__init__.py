"""What each search algorithm makes of a budget: `python -m sitsearch.workers.studies.comparison --out docs/study`.

Every contender, an algorithm with its options, searches for every condition of a task from several seeds at several
budgets. A verifier selects, and judges that took no part say what they think of the winners. All searches of one
contender at one budget, a cell, run at once on one engine. Records of finished searches are appended to `runs.jsonl`,
so that a comparison that was interrupted goes on, and a report can be made from that log alone.

    tasks, contenders -> cells -> shared (one engine, many searches) -> log -> analysis -> report, plot
"""

"""What a study is made of: cells, budgets, jobs, and doing them."""

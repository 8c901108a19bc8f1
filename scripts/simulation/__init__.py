"""`labelloop simulate`: proves a query strategy on data whose labels are all known, before people spend a day on it.

`command` reads the arguments, `datasets` and `files` the data, `features` makes numbers of it, `running` works the cells (a cell
is one strategy with one seed), `report`, `table` and `picture` say what came out. The rounds themselves are `learning.cycle`.
"""

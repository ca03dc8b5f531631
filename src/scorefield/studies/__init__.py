"""Studies: experiments of the papers repeated on small data, and a comparison of the methods on one data set.

`scorefield reproduce NAME` runs an experiment of `papers`: a table or figure of NCSN, NCSNv2, MDSM, ACSM or Score-SDE,
scaled down to a laptop, with every claim of the paper checked against intervals. `scorefield compare-methods` runs
`methods`: each method trained on the same data for the same time, sampled with the same number of network evaluations,
and compared by paired differences. In both a claim x < y is checked by the 95 % interval of the difference x - y: it
held where the whole interval lies below zero, did not hold where it lies above, and is undecided where it contains
zero.

    papers   experiments of single papers: definitions, runs, figures and reports
    methods  the comparison of all methods: experiments, runs, paired claims and report
"""

from scorefield.studies import methods, papers

__all__ = ["methods", "papers"]

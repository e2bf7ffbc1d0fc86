"""One file a suite, found by its name in ``robustness.suites``.

A suite is a function ``conditions(testbed)`` that yields each ``Condition``: its name, the parameters that its table
depends on, and what makes the table.
"""

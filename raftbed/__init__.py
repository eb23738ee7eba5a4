"""raftbed: a distributed test bed for replicated systems.

Data flows one way: plan, deploy, run, record, check, report. This module stays featherweight, because it travels
to the hosts under test together with :mod:`raftbed.nodes`.
"""

__version__ = "0.1.0"

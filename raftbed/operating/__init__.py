"""Operating a cluster that was left running: which there are, how they are, starting, stopping, logs, SSH.

Pure: `ssh_config`, `health`, `logs`, `showing`. The rest are thin shells around fabric, sockets and processes.
"""

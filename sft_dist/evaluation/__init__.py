"""How good are these weights? Request -> worker process -> completions -> grades -> summary.

Reading order: `request.py` (what is asked), `queue.py` and `claims.py` (the run directory as a
queue), `worker.py` (the process with the engine), `client.py` (the trainer's side).
"""

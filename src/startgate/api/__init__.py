"""The agent's HTTP API on a unix socket: what runs, what happened, whether all is held.

- `model`: what it answers. `query`: what may be asked. Both are light: `startgate.client` has them, too.
- `routes`: each route once, for the server and for its OpenAPI document (`document`).
- `stream`: events, from the journal, to clients of any speed. `metrics`: what Prometheus asks for.
- `peers`: who may connect. `server`: all of it on a thread of its own.

aiohttp and prometheus-client are imported by the last four only: in the agent's process, never in one that
holds. docs/api.md.
"""

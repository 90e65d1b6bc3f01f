/*
 * app/manager - `segue serve`: one thread, one loop, all parts.
 *
 *   configuration, store ─▶ models ─┬─▶ fleet (engines)          admin ◀── people
 *                                   └─▶ table ─▶ gateway_link      │
 *                                            ▲                     ▼
 *                                            └──── rollouts ◀── updates
 *
 * It never sees a client's byte.  SIGKILL leaves gateway and engines running;
 * the next manager finds them by their sockets and goes on from the store.
 */
#pragma once

/* Runs until it is told to stop; the exit status of the process. */
int manager_main(int argc, char **argv);

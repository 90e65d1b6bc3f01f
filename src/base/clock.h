/*
 * clock - the two clocks: one that never jumps, one that people read.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* CLOCK_MONOTONIC in nanoseconds: all deadlines and durations. The same in
 * every process of a boot. */
uint64_t clock_ns(void);

/* CLOCK_REALTIME in milliseconds since 1970: for people and records only. */
int64_t clock_wall_ms(void);

enum { CLOCK_TEXT_MAX = 32 };

/* Writes "2026-01-31T12:00:00.123Z" into out. */
void clock_text(int64_t wall_ms, char out[CLOCK_TEXT_MAX]);

/*
 * metrics - what the engine has done, for /metrics.
 *
 * Written by the decode thread, read by the HTTP thread: each value stands alone.
 */
#pragma once
#include "base/buf.h"

/*    member              type       name                                  help */
// clang-format off
#define METRICS(X)                                                                                \
    X(prompt_tokens,      "counter", "segue_engine_prompt_tokens_total",                          \
      "Prompt tokens computed")                                                                   \
    X(reused_tokens,      "counter", "segue_engine_prompt_tokens_reused_total",                   \
      "Prompt tokens taken from an earlier prompt's cells")                                       \
    X(generated_tokens,   "counter", "segue_engine_generated_tokens_total", "Tokens generated")   \
    X(requests_stop,      "counter", "segue_engine_streams_stop_total",                           \
      "Streams that ended by themselves or at a stop string")                                     \
    X(requests_length,    "counter", "segue_engine_streams_length_total",                         \
      "Streams that ended at max_tokens or a full context")                                       \
    X(requests_cancelled, "counter", "segue_engine_streams_cancelled_total",                      \
      "Streams whose client left")                                                                \
    X(requests_failed,    "counter", "segue_engine_streams_failed_total",                         \
      "Streams that ended because the model could not compute")                                   \
    X(requests_refused,   "counter", "segue_engine_requests_refused_total",                       \
      "Requests refused because the queue was full or the engine was stopping")                   \
    X(steps,              "counter", "segue_engine_steps_total", "Calls of llama_decode")         \
    X(step_us,            "counter", "segue_engine_step_microseconds_total",                      \
      "Time spent in them")                                                                       \
    X(sample_us,          "counter", "segue_engine_sample_microseconds_total",                    \
      "Time spent choosing tokens")                                                               \
    X(first_token_us,     "counter", "segue_engine_first_token_microseconds_total",               \
      "Time from a request's arrival to its first token, summed over streams")                    \
    X(first_tokens,       "counter", "segue_engine_first_tokens_total",                           \
      "Streams that got their first token")                                                       \
    X(slots_busy,         "gauge",   "segue_engine_slots_busy", "Slots with a stream")            \
    X(waiting,            "gauge",   "segue_engine_streams_waiting", "Streams without a slot")
// clang-format on

struct metrics {
#define X(member, type, name, help) uint64_t member; /* atomic */
    METRICS(X)
#undef X
};

static inline void metric_add(uint64_t *m, uint64_t n)
{
    __atomic_fetch_add(m, n, __ATOMIC_RELAXED);
}

static inline void metric_set(uint64_t *m, uint64_t n)
{
    __atomic_store_n(m, n, __ATOMIC_RELAXED);
}

static inline uint64_t metric_get(const uint64_t *m)
{
    return __atomic_load_n(m, __ATOMIC_RELAXED);
}

/* The Prometheus text format. */
void metrics_write(const struct metrics *m, struct buf *out);

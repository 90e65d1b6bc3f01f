/* stream - see stream.h. */
#include "engine/stream.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"

#define TO(id) (UINT32_C(1) << STREAM_##id)

static const uint32_t allowed[STREAM_NSTATES] = {
    [STREAM_WAITING] = TO(READING) | TO(ENDED),
    [STREAM_READING] = TO(TALKING) | TO(ENDED),
    [STREAM_TALKING] = TO(ENDED),
    [STREAM_ENDED] = 0,
};

const char *stream_state_name(enum stream_state state)
{
    static const char *const names[] = {
#define X(id, name, fact) name,
        STREAM_STATES(X)
#undef X
    };
    return names[state];
}

const char *finish_name(enum finish f)
{
    static const char *const names[] = {
#define X(id, name) name,
        FINISHES(X)
#undef X
    };
    return names[f];
}

static void check(const struct stream *s)
{
    bool seated = s->state == STREAM_READING || s->state == STREAM_TALKING;

    ALWAYS((s->slot != NULL) == seated);
    ALWAYS((s->sampler != NULL) == seated);
}

void stream_move(struct stream *s, enum stream_state next)
{
    ALWAYS(allowed[s->state] & (UINT32_C(1) << next));
    s->state = next;
    check(s);
}

struct stream *stream_new(struct request *r, int index)
{
    struct stream *s = NEW(struct stream);

    s->refs = 1;
    s->request = request_ref(r);
    s->index = index;
    s->prompt = &r->prompts[index / r->n];
    s->seed = r->seed + (uint64_t)index;
    s->tail.stops = &r->stops;
    s->arrived_ns = clock_ns();
    list_init(&s->link);
    list_init(&s->out);
    return s;
}

struct stream *stream_ref(struct stream *s)
{
    __atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
    return s;
}

void stream_unref(struct stream *s)
{
    if (__atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL))
        return;
    sampler_free(s->sampler);
    tail_fini(&s->tail);
    buf_fini(&s->fresh.text);
    buf_fini(&s->said.text);
    request_unref(s->request);
    free(s);
}

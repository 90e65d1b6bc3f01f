/*
 * decoder - see decoder.h.
 *
 *   waiting ──▶ slot 0 [ cells: template | text | answer so far ]  next token
 *               slot 1 [ cells: template | text ...               ]  still reading
 *               slot 2 [ cells of an earlier stream               ]  free
 *
 * A free slot keeps its cells.  A new stream takes the free slot whose cells
 * begin most like its prompt and computes only the rest: with one prompt template
 * for all requests that is nearly always the template.
 *
 * A step first gives every talking stream its one token, then hands what is left of the
 * batch to the prompts, first come first served.  While somebody talks, the
 * prompts' share is bounded by time: what the last steps took per prompt token says
 * how many fit into `stall_ms`.
 */
#include "engine/decoder.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "engine/backend.h"

enum { PIECE_MIN = 16 }; /* prompt tokens that a step takes however slow the machine is */

struct slot {
    llama_seq_id id;
    struct stream *stream; /* owned reference; NULL: free */
    llama_token *cells;    /* owned; the tokens whose keys and values are computed, in order */
    size_t ncells;
    llama_token next; /* TALKING: said, not yet computed */
    size_t share;     /* tokens of this step */
    int32_t output;   /* place of its logits in this step's batch, -1: none */
    uint64_t seated;  /* order of arrival */
};

struct decoder {
    struct model *model;       /* counted */
    struct llama_context *ctx; /* owned */
    llama_memory_t memory;     /* borrowed */
    struct decoder_options o;
    struct metrics *metrics;  /* borrowed */
    struct llama_batch batch; /* owned */
    struct slot *slots;       /* owned; o.parallel */
    struct list waiting;      /* struct stream */
    size_t nwaiting;
    size_t busy; /* slots with a stream */
    uint64_t seated;
    llama_token *enders; /* owned; tokens that end an answer */
    size_t nenders;
    double token_ns; /* a prompt token's time in a step, smoothed */
    double talk_ns;  /* a step's time without prompts, smoothed */
};

static void find_enders(struct decoder *d)
{
    const struct model *m = d->model;

    for (llama_token t = 0; t < m->ntokens; t++)
        if (llama_vocab_is_eog(m->vocab, t)) {
            d->enders = mem_grow(d->enders, (d->nenders + 1) * sizeof(d->enders[0]));
            d->enders[d->nenders++] = t;
        }
}

struct decoder *decoder_new(struct model *model, const struct decoder_options *o,
                            struct metrics *metrics, struct err *err)
{
    struct llama_context_params params = llama_context_default_params();

    params.n_ctx = (uint32_t)o->context * (uint32_t)o->parallel;
    params.n_seq_max = (uint32_t)o->parallel;
    params.n_batch = params.n_ubatch = (uint32_t)o->batch;
    params.n_outputs_max = (uint32_t)o->parallel;
    params.n_threads = params.n_threads_batch = o->threads;
    params.kv_unified = o->unified;
    backend_words_clear();
    struct llama_context *ctx = llama_init_from_model(model->llama, params);
    if (!ctx) {
        char words[BACKEND_WORDS_MAX];
        backend_words(words);
        err_set(err, 500,
                "libllama cannot make a context of %d x %d tokens for %s (%s); try a smaller "
                "--ctx-size or --parallel",
                o->parallel, o->context, model->path, words);
        return NULL;
    }
    if (o->pool)
        llama_attach_threadpool(ctx, o->pool, o->pool);
    struct decoder *d = NEW(struct decoder);
    d->model = model_ref(model);
    d->ctx = ctx;
    d->memory = llama_get_memory(ctx);
    d->o = *o;
    d->metrics = metrics;
    d->batch = llama_batch_init(o->batch, 0, 1);
    d->slots = mem_zero((size_t)o->parallel * sizeof(d->slots[0]));
    for (int i = 0; i < o->parallel; i++) {
        d->slots[i].id = i;
        d->slots[i].cells = mem_alloc((size_t)o->context * sizeof(llama_token));
    }
    list_init(&d->waiting);
    find_enders(d);
    return d;
}

void decoder_free(struct decoder *d)
{
    if (!d)
        return;
    ALWAYS(decoder_idle(d));
    llama_batch_free(d->batch);
    llama_free(d->ctx);
    for (int i = 0; i < d->o.parallel; i++)
        free(d->slots[i].cells);
    free(d->slots);
    free(d->enders);
    model_unref(d->model);
    free(d);
}

int decoder_context(const struct decoder *d)
{
    return d->o.context;
}

struct model *decoder_model(const struct decoder *d)
{
    return d->model;
}

static void batch_add(struct llama_batch *b, llama_token t, llama_pos pos, llama_seq_id id,
                      bool output)
{
    int32_t i = b->n_tokens++;

    b->token[i] = t;
    b->pos[i] = pos;
    b->n_seq_id[i] = 1;
    b->seq_id[i][0] = id;
    b->logits[i] = output;
}

int decoder_warm(struct decoder *d, struct err *err)
{
    llama_token t = llama_vocab_bos(d->model->vocab);

    d->batch.n_tokens = 0;
    batch_add(&d->batch, t >= 0 ? t : 0, 0, 0, true);
    int rc = llama_decode(d->ctx, d->batch);
    llama_memory_clear(d->memory, true);
    return rc == 0 ? 0
                   : err_set(err, 500, "%s is loaded but cannot compute: llama_decode gave %d",
                             d->model->path, rc);
}

void decoder_add(struct decoder *d, struct stream *s)
{
    list_append(&d->waiting, &s->link);
    metric_set(&d->metrics->waiting, ++d->nwaiting);
}

bool decoder_idle(const struct decoder *d)
{
    return d->busy == 0 && list_empty(&d->waiting);
}

/* --- slots ------------------------------------------------------------------ */

static size_t common(const struct slot *slot, const struct prompt *p)
{
    size_t n = 0, most = slot->ncells < p->n ? slot->ncells : p->n;

    while (n < most && slot->cells[n] == p->tokens[n])
        n++;
    return n;
}

/* The free slot with most of the prompt; of equals the one that loses least, then the
 * first: neighbouring slots are computed together. NULL: none is free. */
static struct slot *choose_slot(struct decoder *d, const struct prompt *p, size_t *same)
{
    struct slot *best = NULL;

    for (int i = 0; i < d->o.parallel; i++) {
        struct slot *slot = &d->slots[i];
        if (slot->stream)
            continue;
        size_t n = common(slot, p);
        if (!best || n > *same || (n == *same && slot->ncells < best->ncells)) {
            best = slot;
            *same = n;
        }
    }
    return best;
}

/* Keeps the first n cells of a slot; all or nothing where the model cannot forget a part. */
static void keep_cells(struct decoder *d, struct slot *slot, size_t n)
{
    if (n < slot->ncells && !llama_memory_seq_rm(d->memory, slot->id, (llama_pos)n, -1)) {
        llama_memory_seq_rm(d->memory, slot->id, -1, -1);
        n = 0;
    }
    slot->ncells = n;
}

static void seat(struct decoder *d, struct slot *slot, struct stream *s, size_t same)
{
    const struct prompt *p = s->prompt;

    list_remove(&s->link);
    metric_set(&d->metrics->waiting, --d->nwaiting);
    metric_set(&d->metrics->slots_busy, ++d->busy);
    if (!s->request->reuse)
        same = 0;
    if (same == p->n)
        same--; /* the last token is computed again, for its logits */
    keep_cells(d, slot, same);
    slot->stream = s;
    slot->seated = d->seated++;
    s->slot = slot;
    s->fresh.reused = (uint32_t)slot->ncells;
    metric_add(&d->metrics->reused_tokens, slot->ncells);
    s->sampler = sampler_new(&s->request->sampling, d->model->ntokens, s->seed);
    sampler_saw_prompt(s->sampler, p->tokens, p->n);
    stream_move(s, STREAM_READING);
}

/* Ends a stream, seated or waiting; its cells stay in the slot. */
static void end(struct decoder *d, struct stream *s, enum finish finish)
{
    struct metrics *m = d->metrics;
    uint64_t *counts[] = {[FINISH_STOP] = &m->requests_stop,
                          [FINISH_LENGTH] = &m->requests_length,
                          [FINISH_CANCELLED] = &m->requests_cancelled,
                          [FINISH_FAILED] = &m->requests_failed};

    if (s->slot) {
        s->slot->stream = NULL;
        s->slot = NULL;
        metric_set(&m->slots_busy, --d->busy);
    } else {
        list_remove(&s->link);
        metric_set(&m->waiting, --d->nwaiting);
    }
    sampler_free(s->sampler);
    s->sampler = NULL;
    s->fresh.finish = finish;
    metric_add(counts[finish], 1);
    stream_move(s, STREAM_ENDED);
}

static void end_cancelled(struct decoder *d, void (*tell)(struct stream *, void *), void *arg)
{
    LIST_FOR_EACH_SAFE(l, &d->waiting)
    {
        struct stream *s = CONTAINER_OF(l, struct stream, link);
        if (stream_is_cancelled(s)) {
            end(d, s, FINISH_CANCELLED);
            tell(s, arg);
        }
    }
    for (int i = 0; i < d->o.parallel; i++) {
        struct stream *s = d->slots[i].stream;
        if (s && stream_is_cancelled(s)) {
            end(d, s, FINISH_CANCELLED);
            tell(s, arg);
        }
    }
}

static void seat_waiting(struct decoder *d)
{
    while (!list_empty(&d->waiting)) {
        struct stream *s = CONTAINER_OF(d->waiting.next, struct stream, link);
        size_t same = 0;
        struct slot *slot = choose_slot(d, s->prompt, &same);
        if (!slot)
            return;
        seat(d, slot, s, same);
    }
}

/* --- one step --------------------------------------------------------------- */

/* How many prompt tokens this step may take. */
static size_t prompt_budget(const struct decoder *d, size_t talking)
{
    size_t most = (size_t)d->o.batch - talking;

    if (talking == 0 || d->token_ns <= 0)
        return most;
    double fits = d->o.stall_ms * 1e6 / d->token_ns;
    if (fits < PIECE_MIN)
        fits = PIECE_MIN;
    return fits < (double)most ? (size_t)fits : most;
}

static struct slot *next_reader(struct decoder *d, uint64_t after)
{
    struct slot *first = NULL;

    for (int i = 0; i < d->o.parallel; i++) {
        struct slot *slot = &d->slots[i];
        if (slot->stream && slot->stream->state == STREAM_READING && slot->seated >= after &&
            (!first || slot->seated < first->seated))
            first = slot;
    }
    return first;
}

/* Decides how many tokens each slot gets; returns those of prompts. */
static size_t give_shares(struct decoder *d)
{
    size_t talking = 0, given = 0;

    for (int i = 0; i < d->o.parallel; i++) {
        struct slot *slot = &d->slots[i];
        slot->output = -1;
        slot->share = slot->stream && slot->stream->state == STREAM_TALKING;
        talking += slot->share;
    }
    size_t budget = prompt_budget(d, talking);
    struct slot *slot = next_reader(d, 0);
    while (slot && given < budget) {
        size_t left = slot->stream->prompt->n - slot->ncells;
        slot->share = left < budget - given ? left : budget - given;
        given += slot->share;
        slot = next_reader(d, slot->seated + 1);
    }
    return given;
}

static void fill_batch(struct decoder *d)
{
    struct llama_batch *b = &d->batch;

    b->n_tokens = 0;
    for (int i = 0; i < d->o.parallel; i++) {
        struct slot *slot = &d->slots[i];
        struct stream *s = slot->stream;
        if (!slot->share)
            continue;
        if (s->state == STREAM_TALKING) {
            slot->output = b->n_tokens;
            batch_add(b, slot->next, (llama_pos)slot->ncells, slot->id, true);
            slot->cells[slot->ncells++] = slot->next;
            continue;
        }
        for (size_t j = 0; j < slot->share; j++) {
            llama_token t = s->prompt->tokens[slot->ncells];
            bool last = slot->ncells + 1 == s->prompt->n;
            if (last)
                slot->output = b->n_tokens;
            batch_add(b, t, (llama_pos)slot->ncells, slot->id, last);
            slot->cells[slot->ncells++] = t;
        }
    }
}

static bool is_stop_token(const struct request *r, llama_token t)
{
    for (size_t i = 0; i < r->nstop_tokens; i++)
        if (r->stop_tokens[i] == t)
            return true;
    return false;
}

/* Takes a token into the answer. FINISH_NONE: it goes on. */
static enum finish say(struct decoder *d, struct slot *slot, llama_token t)
{
    struct stream *s = slot->stream;
    const struct request *r = s->request;
    char piece[1024];

    s->generated++;
    s->fresh.tokens = s->generated;
    metric_add(&d->metrics->generated_tokens, 1);
    if (llama_vocab_is_eog(d->model->vocab, t) || is_stop_token(r, t)) {
        tail_flush(&s->tail, &s->fresh.text);
        return FINISH_STOP;
    }
    size_t n = model_piece(d->model, t, false, piece, sizeof(piece));
    if (tail_add(&s->tail, span_of(piece, n), &s->fresh.text))
        return FINISH_STOP;
    bool enough = r->max_tokens >= 0 && s->generated >= (uint32_t)r->max_tokens;
    if (enough || slot->ncells >= (size_t)d->o.context) {
        tail_flush(&s->tail, &s->fresh.text);
        return FINISH_LENGTH;
    }
    slot->next = t;
    return FINISH_NONE;
}

static void choose_token(struct decoder *d, struct slot *slot)
{
    struct stream *s = slot->stream;
    const struct request *r = s->request;
    float *logits = llama_get_logits_ith(d->ctx, slot->output);

    if (r->ignore_eos || s->generated < (uint32_t)r->min_tokens)
        for (size_t i = 0; i < d->nenders; i++)
            sampler_forbid(logits, d->enders[i]);
    llama_token t = sampler_pick(s->sampler, logits);
    if (t < 0) {
        s->fresh.error = "the model computed no number that could be chosen from; its weights are "
                         "damaged or every token was forbidden";
        keep_cells(d, slot, 0);
        end(d, s, FINISH_FAILED);
        return;
    }
    if (s->state == STREAM_READING) {
        metric_add(&d->metrics->first_tokens, 1);
        metric_add(&d->metrics->first_token_us, (clock_ns() - s->arrived_ns) / 1000);
        stream_move(s, STREAM_TALKING);
    }
    enum finish finish = say(d, slot, t);
    if (finish != FINISH_NONE)
        end(d, s, finish);
}

/* llama_decode() has failed: nobody knows what the cells are worth. */
static void fail_all(struct decoder *d, int rc, void (*tell)(struct stream *, void *), void *arg)
{
    log_error("llama_decode gave %d for %d tokens; the running streams end with an error", rc,
              d->batch.n_tokens);
    llama_memory_clear(d->memory, true);
    for (int i = 0; i < d->o.parallel; i++) {
        struct slot *slot = &d->slots[i];
        struct stream *s = slot->stream;
        slot->ncells = 0;
        if (!s)
            continue;
        s->fresh.error = "the model could not compute this step";
        end(d, s, FINISH_FAILED);
        tell(s, arg);
    }
}

static void smooth(double *mean, double value)
{
    *mean = *mean > 0 ? *mean * 0.8 + value * 0.2 : value;
}

/* What a step took teaches what the next may take. */
static void learn(struct decoder *d, size_t read, uint64_t ns)
{
    double t = (double)ns;

    if (read == 0)
        smooth(&d->talk_ns, t);
    else if (read >= PIECE_MIN)
        smooth(&d->token_ns, (t > d->talk_ns ? t - d->talk_ns : t / 2) / (double)read);
    metric_add(&d->metrics->steps, 1);
    metric_add(&d->metrics->step_us, ns / 1000);
    metric_add(&d->metrics->prompt_tokens, read);
}

void decoder_step(struct decoder *d, void (*tell)(struct stream *s, void *arg), void *arg)
{
    end_cancelled(d, tell, arg);
    seat_waiting(d);
    if (d->busy == 0)
        return;
    size_t read = give_shares(d);
    fill_batch(d);
    uint64_t began = clock_ns();
    int rc = llama_decode(d->ctx, d->batch);
    if (rc != 0) {
        fail_all(d, rc, tell, arg);
        return;
    }
    llama_synchronize(d->ctx);
    uint64_t decoded = clock_ns();
    learn(d, read, decoded - began);
    for (int i = 0; i < d->o.parallel; i++) {
        struct slot *slot = &d->slots[i];
        if (!slot->stream || slot->output < 0)
            continue;
        struct stream *s = slot->stream;
        choose_token(d, slot);
        tell(s, arg);
    }
    metric_add(&d->metrics->sample_us, (clock_ns() - decoded) / 1000);
}

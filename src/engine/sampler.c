/*
 * sampler - see sampler.h.
 *
 * A vocabulary has up to 120,000 tokens and a stream wants one of the best few:
 * one pass keeps the k best in a heap, and only those are sorted and turned into
 * probabilities.  The pass looks at sixteen logits at a time, which the compiler
 * turns into vector compares; almost all blocks have nothing above the heap's floor.
 */
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum { BLOCK = 16, NUCLEUS_FIRST = 256 };

struct candidate {
    float logit;
    llama_token token;
};

struct sampler {
    const struct sampling *ask; /* borrowed */
    int32_t ntokens;
    uint64_t random;   /* state of splitmix64 */
    uint32_t *marks;   /* owned; per token 0: unseen, else 1 + times in the answer */
    llama_token *seen; /* owned; the tokens whose mark is not 0 */
    size_t nseen, seen_room;
    struct candidate *best; /* owned; a heap, then sorted */
    size_t best_room;
    float *weights; /* owned; of each token, made when first needed */
};

struct sampler *sampler_new(const struct sampling *ask, int32_t ntokens, uint64_t seed)
{
    struct sampler *s = NEW(struct sampler);

    s->ask = ask;
    s->ntokens = ntokens;
    s->random = seed;
    if (ask->repetition != 1.0f || ask->frequency != 0 || ask->presence != 0)
        s->marks = mem_zero((size_t)ntokens * sizeof(s->marks[0]));
    return s;
}

void sampler_free(struct sampler *s)
{
    if (!s)
        return;
    free(s->marks);
    free(s->seen);
    free(s->best);
    free(s->weights);
    free(s);
}

static void mark(struct sampler *s, llama_token t)
{
    if (s->marks[t])
        return;
    if (s->nseen == s->seen_room) {
        s->seen_room = s->seen_room ? 2 * s->seen_room : 64;
        s->seen = mem_grow(s->seen, s->seen_room * sizeof(s->seen[0]));
    }
    s->seen[s->nseen++] = t;
    s->marks[t] = 1;
}

void sampler_saw_prompt(struct sampler *s, const llama_token *tokens, size_t n)
{
    if (!s->marks)
        return;
    for (size_t i = 0; i < n; i++)
        if (tokens[i] >= 0 && tokens[i] < s->ntokens)
            mark(s, tokens[i]);
}

static void count(struct sampler *s, llama_token t)
{
    if (!s->marks)
        return;
    mark(s, t);
    s->marks[t]++;
}

void sampler_forbid(float *logits, llama_token t)
{
    logits[t] = -INFINITY;
}

static void penalize(const struct sampler *s, float *logits)
{
    const struct sampling *ask = s->ask;

    for (size_t i = 0; i < ask->nbias; i++)
        logits[ask->bias[i].token] += ask->bias[i].bias;
    for (size_t i = 0; i < s->nseen; i++) {
        float *l = &logits[s->seen[i]];
        uint32_t times = s->marks[s->seen[i]] - 1;
        *l = *l > 0 ? *l / ask->repetition : *l * ask->repetition;
        if (times)
            *l -= (float)times * ask->frequency + ask->presence;
    }
}

/* Whether one of the next BLOCK logits is above the floor; becomes vector compares. */
static bool any_above(const float *logits, float floor)
{
    int any = 0;

    for (int i = 0; i < BLOCK; i++)
        any |= logits[i] > floor;
    return any;
}

static llama_token largest(const float *logits, int32_t n)
{
    llama_token best = -1;
    float most = -INFINITY;

    for (int32_t i = 0; i < n;) {
        int32_t end = i + BLOCK < n ? i + BLOCK : n;
        if (i + BLOCK <= n && !any_above(logits + i, most)) {
            i = end;
            continue;
        }
        for (; i < end; i++)
            if (logits[i] > most) {
                most = logits[i];
                best = i;
            }
    }
    return best;
}

/* Order of the heap: the worst on top; of equals the later token is worse. */
static bool worse(struct candidate a, struct candidate b)
{
    return a.logit < b.logit || (a.logit == b.logit && a.token > b.token);
}

static void sift_down(struct candidate *heap, size_t n, size_t i)
{
    struct candidate c = heap[i];

    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && worse(heap[child + 1], heap[child]))
            child++;
        if (!worse(heap[child], c))
            break;
        heap[i] = heap[child];
    }
    heap[i] = c;
}

static int better_first(const void *pa, const void *pb)
{
    struct candidate a = *(const struct candidate *)pa, b = *(const struct candidate *)pb;

    return worse(a, b) ? 1 : worse(b, a) ? -1 : 0;
}

/* Fills best[] with the k largest logits, best first; returns how many are finite. */
static size_t select_best(struct sampler *s, const float *logits, size_t k)
{
    size_t n = 0;
    int32_t i = 0;

    if (k > s->best_room) {
        s->best_room = k;
        s->best = mem_grow(s->best, k * sizeof(s->best[0]));
    }
    struct candidate *heap = s->best;
    for (; i < s->ntokens && n < k; i++)
        if (logits[i] > -INFINITY)
            heap[n++] = (struct candidate){logits[i], i};
    for (size_t j = n / 2; j-- > 0;)
        sift_down(heap, n, j);
    while (i < s->ntokens) {
        if (i + BLOCK <= s->ntokens && !any_above(logits + i, heap[0].logit)) {
            i += BLOCK;
            continue;
        }
        int32_t end = i + BLOCK < s->ntokens ? i + BLOCK : s->ntokens;
        for (; i < end; i++)
            if (logits[i] > heap[0].logit) {
                heap[0] = (struct candidate){logits[i], i};
                sift_down(heap, n, 0);
            }
    }
    qsort(heap, n, sizeof(heap[0]), better_first);
    return n;
}

/* In [0, 1), 53 bits. */
static double random_unit(struct sampler *s)
{
    uint64_t z = (s->random += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

static double weight(const struct sampler *s, float logit, float top)
{
    return exp((double)(logit - top) / (double)s->ask->temperature);
}

/* How many of the n best stay: their share of `total` reaches top_p, and none is
 * below min_p of the best. *sum is their weight. */
static size_t nucleus(const struct sampler *s, size_t n, double total, double *sum)
{
    size_t keep = 0;

    *sum = 0;
    while (keep < n) {
        double w = weight(s, s->best[keep].logit, s->best[0].logit);
        if (keep && w < (double)s->ask->min_p)
            break;
        *sum += w;
        keep++;
        if (*sum >= (double)s->ask->top_p * total)
            break;
    }
    return keep;
}

static llama_token pick_of(struct sampler *s, size_t keep, double sum)
{
    double left = random_unit(s) * sum;

    for (size_t i = 0; i + 1 < keep; i++) {
        left -= weight(s, s->best[i].logit, s->best[0].logit);
        if (left < 0)
            return s->best[i].token;
    }
    return s->best[keep - 1].token;
}

/* The weights of the whole vocabulary, and their sum. */
static double weigh_all(struct sampler *s, const float *logits, float top)
{
    double total = 0;
    float scale = 1.0f / s->ask->temperature;

    if (!s->weights)
        s->weights = mem_alloc((size_t)s->ntokens * sizeof(s->weights[0]));
    for (int32_t i = 0; i < s->ntokens; i++) {
        s->weights[i] = expf((logits[i] - top) * scale);
        total += (double)s->weights[i];
    }
    return total;
}

/* Nothing but min_p bounds the choice: no order is needed. */
static llama_token pick_of_all(struct sampler *s, double total)
{
    llama_token last = -1;

    if (s->ask->min_p > 0) {
        total = 0;
        for (int32_t i = 0; i < s->ntokens; i++)
            total += s->weights[i] >= s->ask->min_p ? (double)s->weights[i] : 0;
    }
    double left = random_unit(s) * total;
    for (int32_t i = 0; i < s->ntokens && left >= 0; i++)
        if (s->weights[i] > 0 && s->weights[i] >= s->ask->min_p) {
            left -= (double)s->weights[i];
            last = i;
        }
    return last;
}

/* Without top_k: the nucleus is sought among more and more of the best. */
static llama_token pick_unbounded(struct sampler *s, const float *logits)
{
    llama_token first = largest(logits, s->ntokens);

    if (first < 0)
        return -1;
    double total = weigh_all(s, logits, logits[first]), sum;
    if (s->ask->top_p >= 1)
        return pick_of_all(s, total);
    for (size_t k = NUCLEUS_FIRST;; k *= 8) {
        if (k > (size_t)s->ntokens)
            k = (size_t)s->ntokens;
        size_t n = select_best(s, logits, k);
        size_t keep = nucleus(s, n, total, &sum);
        if (keep < n || n < k || k == (size_t)s->ntokens)
            return pick_of(s, keep, sum);
    }
}

static llama_token pick_of_top_k(struct sampler *s, const float *logits)
{
    size_t n = select_best(s, logits, (size_t)s->ask->top_k);
    double total = 0, sum;

    if (n == 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        total += weight(s, s->best[i].logit, s->best[0].logit);
    size_t keep = nucleus(s, n, total, &sum);
    return pick_of(s, keep, sum);
}

llama_token sampler_pick(struct sampler *s, float *logits)
{
    const struct sampling *ask = s->ask;
    llama_token t;

    penalize(s, logits);
    if (ask->temperature == 0)
        t = largest(logits, s->ntokens);
    else if (ask->top_k > 0 && ask->top_k < s->ntokens)
        t = pick_of_top_k(s, logits);
    else
        t = pick_unbounded(s, logits);
    if (t >= 0)
        count(s, t);
    return t;
}

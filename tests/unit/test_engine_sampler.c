/* The sampler against a plain model of it: sort everything, then cut. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/always.h"
#include "engine/sampler.h"
#include "test.h"

enum { N = 1000, DRAWS = 20000 };

static const struct sampling off = {.temperature = 1, .top_p = 1, .repetition = 1};

static uint64_t random_state = 1;

static float random_logit(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(random_state >> 40) / (float)(1 << 24) * 12 - 6;
}

static void fill(float *logits)
{
    for (int i = 0; i < N; i++)
        logits[i] = random_logit();
}

static llama_token pick_once(const struct sampling *ask, const float *logits, uint64_t seed)
{
    float copy[N];
    struct sampler *s = sampler_new(ask, N, seed);

    memcpy(copy, logits, sizeof(copy));
    llama_token t = sampler_pick(s, copy);
    sampler_free(s);
    return t;
}

static void greedy_is_the_first_of_the_largest(void **state)
{
    struct sampling greedy = {.temperature = 0, .top_p = 0.5f, .top_k = 3, .repetition = 1};
    float logits[N];

    for (int round = 0; round < 200; round++) {
        int best = 0;
        fill(logits);
        for (int i = 1; i < N; i++)
            if (logits[i] > logits[best])
                best = i;
        assert_int_equal(pick_once(&greedy, logits, 1), best);
        if (best + 20 < N) {
            logits[best + 20] = logits[best];
            assert_int_equal(pick_once(&greedy, logits, 1), best);
        }
    }
    for (int i = 0; i < N; i++)
        logits[i] = -3;
    assert_int_equal(pick_once(&greedy, logits, 1), 0);
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* The smallest logit that may be drawn, by sorting everything. */
static float floor_of(const struct sampling *ask, const float *logits)
{
    float sorted[N];
    int n = ask->top_k ? ask->top_k : N, keep = 0;
    double total = 0, sum = 0;

    memcpy(sorted, logits, sizeof(sorted));
    qsort(sorted, N, sizeof(sorted[0]), descending);
    for (int i = 0; i < n; i++)
        total += exp((double)(sorted[i] - sorted[0]) / (double)ask->temperature);
    while (keep < n) {
        double w = exp((double)(sorted[keep] - sorted[0]) / (double)ask->temperature);
        if (keep && w < (double)ask->min_p)
            break;
        keep++;
        sum += w;
        if (ask->top_p < 1 && sum >= (double)ask->top_p * total)
            break;
    }
    return sorted[keep - 1];
}

static void only_what_is_allowed_is_drawn(void **state)
{
    static const struct sampling asks[] = {
        {.temperature = 0.7f, .top_p = 0.6f, .top_k = 20, .repetition = 1},
        {.temperature = 2, .top_p = 0.9f, .top_k = 0, .repetition = 1},
        {.temperature = 2, .top_p = 1, .top_k = 50, .repetition = 1},
        {.temperature = 1, .top_p = 1, .min_p = 0.1f, .top_k = 0, .repetition = 1},
        {.temperature = 1, .top_p = 0.95f, .min_p = 0.2f, .top_k = 0, .repetition = 1},
        {.temperature = 1, .top_p = 0, .top_k = 0, .repetition = 1},
        {.temperature = 5, .top_p = 0.999f, .top_k = 0, .repetition = 1},
    };
    float logits[N], copy[N];

    for (size_t a = 0; a < COUNT_OF(asks); a++) {
        fill(logits);
        float floor = floor_of(&asks[a], logits);
        struct sampler *s = sampler_new(&asks[a], N, a);
        bool floor_drawn = false;
        for (int i = 0; i < DRAWS; i++) {
            memcpy(copy, logits, sizeof(copy));
            llama_token t = sampler_pick(s, copy);
            assert_in_range(t, 0, N - 1);
            assert_true(logits[t] >= floor);
            floor_drawn |= logits[t] == floor;
        }
        /* The last that is allowed comes too, where it is not one in thousands. */
        if (asks[a].top_k == 20 || asks[a].top_p == 0)
            assert_true(floor_drawn);
        sampler_free(s);
    }
}

static void shares_follow_the_weights(void **state)
{
    float logits[N], copy[N];
    int drawn[3] = {0};
    static const struct sampling asks[] = {
        {.temperature = 1, .top_p = 1, .top_k = 0, .repetition = 1},
        {.temperature = 1, .top_p = 1, .top_k = 3, .repetition = 1},
        {.temperature = 1, .top_p = 0.99f, .top_k = 0, .repetition = 1},
    };

    for (int i = 0; i < N; i++)
        logits[i] = -INFINITY;
    logits[17] = logf(0.2f), logits[500] = logf(0.5f), logits[999] = logf(0.3f);
    for (size_t a = 0; a < COUNT_OF(asks); a++) {
        struct sampler *s = sampler_new(&asks[a], N, 42);
        memset(drawn, 0, sizeof(drawn));
        for (int i = 0; i < DRAWS; i++) {
            memcpy(copy, logits, sizeof(copy));
            llama_token t = sampler_pick(s, copy);
            drawn[t == 17 ? 0 : t == 500 ? 1 : 2]++;
        }
        assert_in_range(drawn[0], DRAWS * 18 / 100, DRAWS * 22 / 100);
        assert_in_range(drawn[1], DRAWS * 48 / 100, DRAWS * 52 / 100);
        assert_in_range(drawn[2], DRAWS * 28 / 100, DRAWS * 32 / 100);
        sampler_free(s);
    }
}

static void the_seed_decides(void **state)
{
    struct sampling hot = off;
    float logits[N];
    int different = 0;

    hot.temperature = 3;
    fill(logits);
    for (uint64_t seed = 0; seed < 20; seed++) {
        assert_int_equal(pick_once(&hot, logits, seed), pick_once(&hot, logits, seed));
        different += pick_once(&hot, logits, seed) != pick_once(&hot, logits, seed + 1);
    }
    assert_true(different > 10);
}

static void penalties_count_prompt_and_answer(void **state)
{
    struct sampling ask = {.temperature = 0, .top_p = 1, .repetition = 2};
    float logits[N] = {0};
    llama_token prompt[] = {3, 4, 3};

    /* Repetition: positive logits are divided, negative multiplied, once for each token. */
    struct sampler *s = sampler_new(&ask, N, 1);
    sampler_saw_prompt(s, prompt, 3);
    logits[3] = 5, logits[4] = -1, logits[7] = 3;
    assert_int_equal(sampler_pick(s, logits), 7);
    assert_true(logits[3] == 2.5f && logits[4] == -2 && logits[7] == 3);
    logits[3] = 5, logits[7] = 3, logits[8] = 2.6f; /* now 7 is in the answer too */
    assert_int_equal(sampler_pick(s, logits), 8);
    sampler_free(s);

    /* Presence and frequency: only what was said. */
    ask = (struct sampling){
        .temperature = 0, .top_p = 1, .repetition = 1, .presence = 1, .frequency = 0.5f};
    s = sampler_new(&ask, N, 1);
    sampler_saw_prompt(s, prompt, 3);
    for (int i = 0; i < 3; i++) {
        memset(logits, 0, sizeof(logits));
        logits[3] = 5;
        assert_int_equal(sampler_pick(s, logits), 3);
        assert_true(logits[3] == 5 - (i ? 1 + 0.5f * (float)i : 0));
    }
    sampler_free(s);
}

static void bias_and_forbidden(void **state)
{
    llama_logit_bias bias[] = {{5, 100}, {6, -INFINITY}};
    struct sampling ask = {.temperature = 0, .top_p = 1, .repetition = 1, .bias = bias, .nbias = 2};
    float logits[N] = {0};

    logits[6] = 50;
    struct sampler *s = sampler_new(&ask, N, 1);
    assert_int_equal(sampler_pick(s, logits), 5);
    sampler_free(s);

    ask.nbias = 0;
    for (int hot = 0; hot < 2; hot++) {
        ask.temperature = (float)hot;
        for (int i = 0; i < N; i++)
            logits[i] = 0;
        for (int i = 0; i < N - 1; i++)
            sampler_forbid(logits, i);
        assert_int_equal(pick_once(&ask, logits, 9), N - 1);
        sampler_forbid(logits, N - 1);
        assert_int_equal(pick_once(&ask, logits, 9), -1); /* nothing left */
        ask.top_k = 20;
        assert_int_equal(pick_once(&ask, logits, 9), -1);
        for (int i = 0; i < N; i++)
            logits[i] = NAN;
        assert_int_equal(pick_once(&ask, logits, 9), -1); /* garbage */
        ask.top_k = 0;
        assert_int_equal(pick_once(&ask, logits, 9), -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_is_the_first_of_the_largest),
        cmocka_unit_test(only_what_is_allowed_is_drawn),
        cmocka_unit_test(shares_follow_the_weights),
        cmocka_unit_test(the_seed_decides),
        cmocka_unit_test(penalties_count_prompt_and_answer),
        cmocka_unit_test(bias_and_forbidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

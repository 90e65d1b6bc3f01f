/*
 * sampler - from a row of logits to the next token.
 *
 * The order is that of transformers and vLLM, which HY-MT's settings were made
 * with: bias, repetition penalty (prompt and answer), frequency and presence
 * penalty (answer only), temperature, top_k, top_p, min_p.  libllama's default
 * chain puts the temperature last; the same numbers mean something else there.
 * Temperature 0 is the largest logit, first one on a tie, as libllama's greedy
 * sampler.
 */
#pragma once
#include <llama.h>
#include <stdbool.h>

/* What a request asks for; fixed while its streams run. */
struct sampling {
    float temperature;         /* 0: greedy */
    float top_p;               /* 1: off */
    float min_p;               /* 0: off */
    int top_k;                 /* 0: off */
    float repetition;          /* 1: off */
    float frequency, presence; /* 0: off */
    llama_logit_bias *bias;    /* owned by the request */
    size_t nbias;
};

struct sampler;

/* `s` borrowed, outlives the sampler. */
struct sampler *sampler_new(const struct sampling *s, int32_t ntokens, uint64_t seed);
void sampler_free(struct sampler *s);

/* Tokens of the prompt: count for the repetition penalty. */
void sampler_saw_prompt(struct sampler *s, const llama_token *tokens, size_t n);

/* Forbids a token for the next pick only: its logit becomes minus infinity. */
void sampler_forbid(float *logits, llama_token t);

/* The next token, which is also counted; logits are changed in place. -1 when
 * no logit is a number: the model computes garbage. */
llama_token sampler_pick(struct sampler *s, float *logits);

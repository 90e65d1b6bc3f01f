/*
 * gateway_message - table messages for the tests of the gateway's parts.
 *
 * Written with ' in place of ", so that they can be read.
 */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "gateway/table.h"
#include "test.h"

#define MESSAGE_LIMITS                                                       \
    "'limits':{'head_bytes':16384,'body_bytes':8388608,'connections':20000," \
    "'client_buffer_bytes':262144},"                                         \
    "'timeouts':{'head':10000,'body':60000,'idle':75000,'send':60000,"       \
    "'connect':2000,'first_byte':300000,'between_bytes':120000,"             \
    "'upstream_idle':30000}"

/* One replica, ready or not. */
#define REPLICA(slot, address, serve_as, ready)                                  \
    "{'slot':" slot ",'address':'" address "','prefix':'','serve_as':'" serve_as \
    "','ready':" ready "}"
#define VERSION(name, weight, replicas) \
    "{'name':'" name "','weight':" weight ",'replicas':[" replicas "]}"
#define MODEL(name, aliases, versions)                                         \
    "{'name':'" name "','aliases':[" aliases "],'hold_ms':30000,'hold_max':8," \
    "'expected':true,'created':1760000000,'versions':[" versions "]}"

/* ' becomes ". */
static inline void quotes(char *text)
{
    for (; *text; text++)
        if (*text == '\'')
            *text = '"';
}

/* The message; the caller frees it. more: members with a comma behind each, or "". */
static inline char *message_text(unsigned epoch, const char *more, const char *models)
{
    char *text = str_fmt("{'type':'table','epoch':%u,%s" MESSAGE_LIMITS ",'models':[%s]}", epoch,
                         more, models);

    quotes(text);
    return text;
}

/* Parses a message that must be good. */
static inline struct table *table_of(const struct table *base, unsigned epoch, const char *more,
                                     const char *models)
{
    struct err err = {0};
    char *text = message_text(epoch, more, models);
    struct table *t = table_parse(span_str(text), base, &err);

    if (!t)
        fail_msg("%s\nrefused: %s", text, err.text);
    free(text);
    return t;
}

/* A table that says only what changed since `base`. */
static inline struct table *table_change(const struct table *base, const char *models)
{
    char more[32];

    snprintf(more, sizeof(more), "'base':%u,", (unsigned)base->epoch);
    return table_of(base, (unsigned)base->epoch + 1, more, models);
}

/* Two models, for most of the tests. */
#define HY                                                             \
    MODEL("hy-mt", "'hunyuan','hy'",                                   \
          VERSION("v1", "1",                                           \
                  REPLICA("3", "unix:/run/v1.sock", "hy-mt@v1-engine", \
                          "true")) "," VERSION("v2", "0",              \
                                               REPLICA("4", "127.0.0.1:8001", "served", "true")))
#define OTHER MODEL("other", "", VERSION("a", "1", REPLICA("5", "[::1]:8002", "other-as", "false")))

/* What a name means: "MODEL" by its route, "MODEL@VERSION" if it is pinned, or "-". */
static inline const char *meaning(const struct table *t, const char *name)
{
    struct table_match match;

    if (!table_find(t, span_str(name), &match))
        return "-";
    return match.version ? match.version->tag : match.model->name;
}

enum { MANY = 1000 };

/* MANY models with an alias each; the caller frees it. */
static inline char *many_models(void)
{
    struct buf models = {0};

    for (int i = 0; i < MANY; i++)
        buf_addf(&models,
                 "%s{'name':'model-%d','aliases':['alias-%d'],'hold_ms':1,'hold_max':1,"
                 "'versions':[{'name':'v1','weight':1,'replicas':[{'slot':%d,"
                 "'address':'127.0.0.1:1','prefix':'','serve_as':'engine-%d','ready':true}]}]}",
                 i ? "," : "", i, i, i, i);
    return buf_take(&models);
}

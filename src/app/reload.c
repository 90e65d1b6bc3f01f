/*
 * reload - what SIGHUP finds changed in segue.yaml.
 *
 * Nothing is applied to a running manager; so that nobody believes it was, each
 * key that differs is named.
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "app/internal.h"

enum field_type { TEXT, TEXTS, UNSIGNED, WIDE, SIZE, SHARE, FLAG, ENGINE };

struct field {
    const char *name;
    enum field_type type;
    size_t offset;
};

#define FIELD(of, member, name, type)           \
    {                                           \
        name, type, offsetof(struct of, member) \
    }

static const struct field config_fields[] = {
    FIELD(config, listen, "listen", TEXTS),
    FIELD(config, workers, "workers", UNSIGNED),
    FIELD(config, admin_socket, "admin.socket", TEXT),
    FIELD(config, state, "state", TEXT),
    FIELD(config, keys_required, "keys", FLAG),
    FIELD(config, tls_certificate, "tls.certificate", TEXT),
    FIELD(config, tls_key, "tls.key", TEXT),
    FIELD(config, log_level, "log_level", TEXT),
    FIELD(config, engine_program, "engine_program", TEXT),
    FIELD(config, access_log_file, "access_log.file", TEXT),
    FIELD(config, access_log_text, "access_log.format", FLAG),
    FIELD(config, metrics_listen, "metrics.listen", TEXTS),
    FIELD(config, limits.head_bytes, "limits.head_bytes", SIZE),
    FIELD(config, limits.body_bytes, "limits.body_bytes", SIZE),
    FIELD(config, limits.connections, "limits.connections", UNSIGNED),
    FIELD(config, limits.client_buffer_bytes, "limits.client_buffer_bytes", UNSIGNED),
    FIELD(config, limits.exchanges, "limits.exchanges", UNSIGNED),
    FIELD(config, limits.client_connections, "limits.client_connections", UNSIGNED),
    FIELD(config, limits.body_memory_bytes, "limits.body_memory_bytes", SIZE),
    FIELD(config, sticky_header, "sticky_header", TEXT),
    FIELD(config, cors, "cors", TEXTS),
    FIELD(config, timeouts.head, "timeouts.head", WIDE),
    FIELD(config, timeouts.body, "timeouts.body", WIDE),
    FIELD(config, timeouts.idle, "timeouts.idle", WIDE),
    FIELD(config, timeouts.send, "timeouts.send", WIDE),
    FIELD(config, timeouts.connect, "timeouts.connect", WIDE),
    FIELD(config, timeouts.first_byte, "timeouts.first_byte", WIDE),
    FIELD(config, timeouts.between_bytes, "timeouts.between_bytes", WIDE),
    FIELD(config, timeouts.upstream_idle, "timeouts.upstream_idle", WIDE),
};

static const struct field model_fields[] = {
    FIELD(config_model, aliases, "aliases", TEXTS),
    FIELD(config_model, serve, "serve", TEXT),
    FIELD(config_model, hold_ms, "hold", WIDE),
    FIELD(config_model, hold_max, "hold_max", UNSIGNED),
    FIELD(config_model, ready.ask, "ready.ask", TEXT),
    FIELD(config_model, ready.expect, "ready.expect", TEXT),
    FIELD(config_model, ready.max_tokens, "ready.max_tokens", UNSIGNED),
    FIELD(config_model, ready.timeout_ms, "ready.timeout", WIDE),
    FIELD(config_model, ready.start_timeout_ms, "ready.start_timeout", WIDE),
    FIELD(config_model, update.drain_ms, "update.drain", WIDE),
    FIELD(config_model, update.settle_requests, "update.settle_requests", WIDE),
    FIELD(config_model, update.settle_ms, "update.settle", WIDE),
    FIELD(config_model, update.settle_failures, "update.settle_failures", SHARE),
    FIELD(config_model, update.spare_running, "update.spare", FLAG),
};

static const struct field version_fields[] = {
    FIELD(config_version, engine, "engine", ENGINE),
    FIELD(config_version, path, "path", TEXT),
    FIELD(config_version, url, "url", TEXT),
    FIELD(config_version, served_model_name, "served_model_name", TEXT),
    FIELD(config_version, program, "program", TEXT),
    FIELD(config_version, run, "run", TEXTS),
    FIELD(config_version, args, "args", TEXTS),
    FIELD(config_version, threads, "threads", UNSIGNED),
    FIELD(config_version, parallel, "parallel", UNSIGNED),
    FIELD(config_version, ctx_size, "ctx_size", UNSIGNED),
    FIELD(config_version, replicas, "replicas", UNSIGNED),
};

static bool same_text(const char *a, const char *b)
{
    return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

static bool same_texts(char **a, char **b)
{
    size_t i = 0;

    for (; a && a[i] && b && b[i]; i++)
        if (strcmp(a[i], b[i]) != 0)
            return false;
    return !(a && a[i]) && !(b && b[i]);
}

static bool same(const struct field *f, const char *a, const char *b)
{
    const void *x = a + f->offset, *y = b + f->offset;

    switch (f->type) {
    case TEXT:
        return same_text(*(char *const *)x, *(char *const *)y);
    case TEXTS:
        return same_texts(*(char **const *)x, *(char **const *)y);
    case UNSIGNED:
        return *(const unsigned *)x == *(const unsigned *)y;
    case WIDE:
        return *(const uint64_t *)x == *(const uint64_t *)y;
    case SIZE:
        return *(const size_t *)x == *(const size_t *)y;
    case SHARE:
        return *(const double *)x == *(const double *)y;
    case FLAG:
        return *(const bool *)x == *(const bool *)y;
    case ENGINE:
        return *(const enum config_engine *)x == *(const enum config_engine *)y;
    }
    return false;
}

static size_t compare(const struct field *fields, size_t n, const void *a, const void *b,
                      const char *prefix, struct buf *out)
{
    size_t found = 0;

    for (size_t i = 0; i < n; i++) {
        if (same(&fields[i], a, b))
            continue;
        buf_addf(out, "%s%s has changed\n", prefix, fields[i].name);
        found++;
    }
    return found;
}

static size_t compare_versions(const struct config_model *a, const struct config_model *b,
                               struct buf *out)
{
    char prefix[192];
    size_t found = 0;

    for (size_t i = 0; i < a->nversions; i++) {
        const struct config_version *v = &a->versions[i], *w = config_version_find(b, v->name);

        snprintf(prefix, sizeof(prefix), "models.%s.versions.%s.", a->name, v->name);
        if (w)
            found += compare(version_fields, COUNT_OF(version_fields), v, w, prefix, out);
        else
            found++, buf_addf(out, "models.%s.versions.%s is gone\n", a->name, v->name);
    }
    for (size_t i = 0; i < b->nversions; i++)
        if (!config_version_find(a, b->versions[i].name))
            found++, buf_addf(out, "models.%s.versions.%s is new\n", b->name, b->versions[i].name);
    return found;
}

size_t reload_differences(const struct config *running, const struct config *read, struct buf *out)
{
    size_t found = compare(config_fields, COUNT_OF(config_fields), running, read, "", out);
    char prefix[128];

    for (size_t i = 0; i < running->nmodels; i++) {
        const struct config_model *m = &running->models[i], *n = config_model_find(read, m->name);

        snprintf(prefix, sizeof(prefix), "models.%s.", m->name);
        if (n) {
            found += compare(model_fields, COUNT_OF(model_fields), m, n, prefix, out);
            found += compare_versions(m, n, out);
        } else {
            found++, buf_addf(out, "models.%s is gone\n", m->name);
        }
    }
    for (size_t i = 0; i < read->nmodels; i++)
        if (!config_model_find(running, read->models[i].name))
            found++, buf_addf(out, "models.%s is new\n", read->models[i].name);
    return found;
}

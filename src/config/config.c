/* config - see config.h. */
#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "config/internal.h"

const char *config_engine_name(enum config_engine e)
{
    static const char *const names[] = {
#define X(id, name, managed) name,
        CONFIG_ENGINES(X)
#undef X
    };
    return (size_t)e < COUNT_OF(names) ? names[e] : NULL;
}

int config_engine_by_name(const char *name)
{
    for (int i = 0; config_engine_name((enum config_engine)i); i++)
        if (strcmp(config_engine_name((enum config_engine)i), name) == 0)
            return i;
    return -1;
}

bool config_engine_managed(enum config_engine e)
{
    static const bool managed[] = {
#define X(id, name, is_managed) is_managed,
        CONFIG_ENGINES(X)
#undef X
    };
    return managed[e];
}

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool config_name_ok(const char *name)
{
    size_t n = 0;

    for (; name[n]; n++)
        if (n == 64 || !(is_alnum(name[n]) || (n && strchr("._-", name[n]))))
            return false;
    return n > 0;
}

const struct config_model *config_model_find(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->nmodels; i++)
        if (strcmp(c->models[i].name, name) == 0)
            return &c->models[i];
    return NULL;
}

const struct config_version *config_version_find(const struct config_model *m, const char *name)
{
    for (size_t i = 0; i < m->nversions; i++)
        if (strcmp(m->versions[i].name, name) == 0)
            return &m->versions[i];
    return NULL;
}

void config_version_init(struct config_version *v, const char *name)
{
    struct diags diags = {.name = name};
    struct reader r = {&diags, "/"};

    *v = (struct config_version){.name = str_dup(name)};
    read_scope(&r, SCOPE_VERSION, NULL, v);
    ALWAYS(diags.n == 0);
}

void config_version_copy(struct config_version *to, const struct config_version *from)
{
    *to = (struct config_version){.name = str_dup(from->name)};
    scope_copy(SCOPE_VERSION, to, from);
}

void config_version_fini(struct config_version *v)
{
    free(v->name);
    scope_fini(SCOPE_VERSION, v);
    *v = (struct config_version){0};
}

void config_free(struct config *c)
{
    if (!c)
        return;
    scope_fini(SCOPE_ROOT, c);
    free(c->file);
    free(c);
}

/* Reads and checks a tree into a new config, which may be half wrong. */
static struct config *read_config(struct reader *r, const struct node *root)
{
    struct config *c = NEW(struct config);

    if (node_is_null(root)) {
        diag_error(r->diags, 1, 1, "the file is empty; at least `models` is needed");
        return c;
    }
    if (root->kind != NODE_MAP) {
        diag_error(r->diags, root->line, root->column, "the file must be a map of keys, not %s",
                   node_kind_name(root));
        return c;
    }
    read_scope(r, SCOPE_ROOT, root, c);
    check_config(r, root, c);
    return c;
}

struct config *config_parse(struct span text, const char *name, const char *folder,
                            struct buf *diagnostics)
{
    struct diags diags = {.name = name};
    struct reader r = {&diags, folder};
    struct node *root = tree_read(text, &diags);
    struct config *c = root ? read_config(&r, root) : NULL;

    if (diags.errors) {
        config_free(c);
        c = NULL;
    }
    ALWAYS(c || diags.errors);
    diags_print(&diags, diagnostics);
    diags_fini(&diags);
    tree_free(root);
    return c;
}

/* All bytes of a regular file of bearable size; -1 with errno. */
static int read_file(const char *file, struct buf *out)
{
    /* O_NONBLOCK: a FIFO must not make us wait for its writer. */
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    ssize_t n = fd < 0 || fstat(fd, &st) < 0 ? -1 : 1;

    if (n > 0 && !S_ISREG(st.st_mode)) {
        errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
        n = -1;
    }
    while (n > 0 && buf_pending(out) <= TREE_BYTES_MAX) {
        n = read(fd, buf_room(out, 65536), 65536);
        if (n > 0)
            buf_added(out, (size_t)n);
    }
    int saved = errno;
    if (fd >= 0)
        close(fd);
    errno = saved;
    return n < 0 ? -1 : 0;
}

/* segue-engine in the folder of our own executable, or NULL: then it is looked
 * up on PATH. */
static char *engine_beside_us(void)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (n <= 0)
        return NULL;
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    char *program = str_fmt("%.*s/segue-engine", (int)(slash - self), self);
    if (access(program, X_OK) == 0)
        return program;
    free(program);
    return NULL;
}

struct config *config_load(const char *file, struct buf *diagnostics)
{
    struct buf text = {0};
    struct config *c = NULL;
    char *absolute = realpath(file, NULL);

    if (!absolute || read_file(absolute, &text) < 0) {
        buf_addf(diagnostics, "%s: error: cannot be read: %s\n", file,
                 errno == EINVAL ? "it is not a regular file" : strerror(errno));
    } else {
        char *slash = strrchr(absolute, '/');
        char *folder = slash == absolute ? str_dup("/")
                                         : span_dup(span_of(absolute, (size_t)(slash - absolute)));
        c = config_parse(buf_span(&text), file, folder, diagnostics);
        free(folder);
    }
    if (c) {
        c->file = str_dup(absolute);
        if (!c->engine_program)
            c->engine_program = engine_beside_us();
    }
    free(absolute);
    buf_fini(&text);
    return c;
}

"""The counters segment, read by name.

The compiler says how src/gateway/counters.h lays it out, so that a new counter needs nothing here.
"""
import functools
import json
import mmap
import os
import struct
import subprocess
import tempfile

from .box import ROOT

PROGRAM = r"""
#include <stddef.h>
#include <stdio.h>
#include "gateway/counters.h"
#define X(name) printf("%s\"" #name "\": %zu", sep, offsetof(ROW, name)), sep = ", ";
int main(void)
{
    const char *sep = "";
    printf("{\"size\": %zu, \"version\": %d, \"slots\": %d, \"workers\": %d, ",
           sizeof(struct counters), COUNTERS_VERSION, COUNTERS_SLOTS, COUNTERS_WORKERS);
    printf("\"worker\": {\"at\": %zu, \"size\": %zu, \"names\": {",
           offsetof(struct counters, workers), sizeof(struct worker_row));
#define ROW struct worker_row
    WORKER_COUNTERS(X)
#undef ROW
#define ROW struct replica_row
    sep = "";
    printf("}}, \"replica\": {\"at\": %zu, \"size\": %zu, \"names\": {",
           offsetof(struct counters, replicas), sizeof(struct replica_row));
    REPLICA_COUNTERS(X)
    X(last_start_ns)
    printf("}}}\n");
    return 0;
}
"""


@functools.lru_cache(maxsize=None)
def layout():
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "layout")
        subprocess.run([os.environ.get("CC", "cc"), "-D_GNU_SOURCE", f"-I{ROOT}/src", "-xc", "-",
                        "-o", program], input=PROGRAM, text=True, check=True)
        return json.loads(subprocess.check_output([program]))


class Counters:
    def __init__(self, fd=None):
        self.layout = layout()
        if fd is None:
            fd = os.memfd_create("segue-counters")
            os.ftruncate(fd, self.layout["size"])
            os.pwrite(fd, struct.pack("<Q", self.layout["version"]), 0)
        self.fd = fd
        assert os.fstat(fd).st_size == self.layout["size"], "the segment has another layout"
        self.map = mmap.mmap(fd, self.layout["size"])

    def _row(self, kind, index):
        row = self.layout[kind]
        base = row["at"] + index * row["size"]
        return {name: struct.unpack_from("<Q", self.map, base + at)[0]
                for name, at in row["names"].items()}

    def replica(self, slot):
        """Summed over the workers."""
        total = dict.fromkeys(self.layout["replica"]["names"], 0)
        for w in range(self.layout["workers"]):
            for k, v in self._row("replica", slot * self.layout["workers"] + w).items():
                total[k] = max(total[k], v) if k == "last_start_ns" else total[k] + v
        total["begun"] = total["started"] + total["pinned"]
        total["in_flight"] = total["begun"] - sum(
            total[k] for k in ("finished", "failed", "truncated", "cancelled", "retried"))
        return total

    def all(self):
        """Of the whole gateway, summed over the workers."""
        total = dict.fromkeys(self.layout["worker"]["names"], 0)
        for w in range(self.layout["workers"]):
            for k, v in self._row("worker", w).items():
                total[k] += v
        total["connections"] = total["opened"] - total["closed"]
        total["held"] = total["held_total"] - total["unheld"]
        return total

    def close(self):
        self.map.close()
        os.close(self.fd)

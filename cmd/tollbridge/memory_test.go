package main

import (
	"math"
	"testing"
	"testing/fstest"
)

func TestMemoryLimit(t *testing.T) {
	const meminfo = "MemTotal:       4194304 kB\nMemFree:         811200 kB\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"nothing is known", nil, math.MaxInt64},
		{"a machine", map[string]string{"proc/meminfo": meminfo}, 3 << 30},
		{"a service without a bound", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/system.slice/tollbridge.service\n",
			"sys/fs/cgroup/system.slice/tollbridge.service/memory.max": "max\n",
		}, 3 << 30},
		{"a service with one", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "1:cpu:/x\n0::/system.slice/tollbridge.service\n",
			"sys/fs/cgroup/system.slice/tollbridge.service/memory.max": "1073741824\n",
		}, 3 << 28},
		{"a service in a slice with a lower one", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/aaa.slice/aaa-billing.slice/tollbridge.service\n",
			"sys/fs/cgroup/aaa.slice/memory.max":                                      "1073741824\n",
			"sys/fs/cgroup/aaa.slice/aaa-billing.slice/memory.max":                    "max\n",
			"sys/fs/cgroup/aaa.slice/aaa-billing.slice/tollbridge.service/memory.max": "2147483648\n",
		}, 3 << 28},
		{"a container", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "2147483648\n",
		}, 3 << 29},
		{"a group that may have more than there is", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "8589934592\n",
		}, 3 << 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, content := range tt.files {
				root[name] = &fstest.MapFile{Data: []byte(content)}
			}
			if got := memoryLimit(root); got != tt.want {
				t.Errorf("%d octets, want %d", got, tt.want)
			}
		})
	}
}

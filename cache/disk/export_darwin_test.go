package disk

import "os"

// InMemory can't be told here.
func InMemory(*os.File, int) int { return 0 }

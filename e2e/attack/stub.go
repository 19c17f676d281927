package main

func cacheScenes() []scene     { return nil }
func memoryScenes() []scene    { return nil }
func stateScenes() []scene     { return nil }
func growthScenes() []scene    { return nil }
func queueScenes() []scene     { return nil }
func journalScenes() []scene   { return nil }
func fileScenes() []scene      { return nil }
func leaseScenes() []scene     { return nil }
func publisherScenes() []scene { return nil }
func edgeScenes() []scene      { return nil }
func clockScenes() []scene     { return nil }
func addressScenes() []scene   { return nil }

package main

func leaseScenes() []scene     { return nil }
func publisherScenes() []scene { return nil }
func edgeScenes() []scene      { return nil }
func clockScenes() []scene     { return nil }
func addressScenes() []scene   { return nil }

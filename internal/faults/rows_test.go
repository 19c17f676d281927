package faults_test

import (
	"syscall"

	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/internal/origin"
)

// rows are the faults by number.
var rows = []row{
	{id: "F1", what: "reset in a body", huge: true, plan: func(tr *trial) { tr.cut(origin.CutReset, "") }},
	{id: "F2", what: "closed short of Content-Length", huge: true, plan: func(tr *trial) { tr.cut(origin.CutFIN, "") }},
	{id: "F3", what: "chunked and short", huge: true, plan: func(tr *trial) {
		tr.cut(pick(tr, origin.CutFIN, origin.CutHonest), origin.LengthChunked)
	}},
	{id: "F4", what: "stall of 10, 35 or 600 s in a body", shown: "upstream TestStallIsABreak, TestStallForGood", huge: true, plan: planStall},
	{id: "F5", what: "stall before the header", huge: true, plan: planDelay},
	{id: "F6", what: "1 byte a second, 10 KiB a second", shown: "upstream TestCrawlIsGivenUp; cache/flight TestFasterSourceTakesOver", share: 50, plan: planDrip},
	{id: "F7", what: "other bytes of the same length", shown: "server TestStreamOfWrongBytes; cache/flight TestWrongContentEndsEveryReader; e2e TestCorruptOnceThenHealthy", huge: true, plan: planLie(func(*trial) origin.Fault {
		return origin.Fault{Wrong: true}
	})},
	{id: "F8", what: "one bit wrong", shown: "cache/flight TestHoldBack", huge: true, plan: planLie(func(tr *trial) origin.Fault {
		return origin.Fault{Flip: []int64{pick(tr, 0, tr.size/2, tr.size-1, max(0, tr.size-64<<10), tr.r.Int64N(tr.size))}}
	})},
	{id: "F9", what: "longer than declared", plan: planLonger},
	{id: "F10", what: "Content-Length missing, wrong or none", shown: "cache/flight TestUnknownSize, TestSourceThatSaysAnotherSize; cache TestClaimedSizeEvictsNothing", plan: planLength},
	{id: "F11", what: "Docker-Content-Digest of other content, absent, nonsense", plan: planDigestHeader},
	{id: "F12", what: "206 of another range, 200 to a Range, 416", shown: "upstream TestContentRangeIsChecked, TestNeverBeyondTheRange", huge: true, plan: planRange},
	{id: "F13", what: "429, Retry-After of all kinds", shown: "server TestNeverChallengesNorLimits", plan: planLimited},
	{id: "F14", what: "5xx for seconds or minutes", plan: planBurst},
	{id: "F15", what: "token ends in a body, renewed or not", shown: "upstream TestBreakAndTokenExpired, TestRevokedTokenIsRenewedOnce", plan: planExpired},
	{id: "F16", what: "token service elsewhere", shown: "upstream TestHostileRealms, TestDialCheckSeesTheAddressThatIsDialled", share: 50, plan: planHijack},
	{id: "F17", what: "redirects in circles, to strangers, to private hosts", shown: "upstream TestRedirectsTakeNoCredentials, TestRedirectsToPrivateAddresses", plan: planRedirect},
	{id: "F18", what: "signed address expires in a body", huge: true, plan: planSigned},
	{id: "F19", what: "web page with 200", shown: "server TestBadUpstreams", plan: planHTML},
	{id: "F20", what: "name not found, name server fails, or takes 20 s", shown: "upstream TestHosts", plan: planDNS},
	{id: "F21", what: "certificate expired, of another, unknown; silence", shown: "upstream TestTLSAndSteps", share: 20, plan: planTLS},
	{id: "F22", what: "Content-Encoding: gzip", plan: planGzip},
	{id: "F23", what: "manifest of 4 MiB + 1, too deep, ambiguous, none", shown: "oci TestParseManifestRefuses, TestParseManifestAtTheLimits; upstream TestManifestThatSaysToBeHuge", share: 30, plan: planManifests},
	{id: "F24", what: "tag moves between HEAD and GET", shown: "pull TestMovedTagWhoseManifestIsSlow", share: 50, plan: planFlips},
	{id: "F25", what: "HTTP/2 offered, and cut", share: 20, plan: planHTTP2},
	{id: "F26", what: "connecting takes for ever", share: 50, plan: planBlackhole},
	{id: "F27", what: "disk full at the k-th call", shown: "cache TestDiskFullAtEveryWrite; cache/disk TestFaultAtEveryCall", plan: failingCalls(syscall.ENOSPC, cachetest.Create, cachetest.WriteAt, cachetest.Commit)},
	{id: "F28", what: "quota used up at the k-th call", shown: "cache/disk TestFaultAtEveryCall", plan: failingCalls(syscall.EDQUOT, cachetest.Create, cachetest.WriteAt, cachetest.Commit)},
	{id: "F29", what: "input/output error at the k-th call", shown: "cache/disk TestFaultAtEveryCall; cache/flight TestSpoolFailsAtEveryCall", plan: failingCalls(syscall.EIO, cachetest.Open, cachetest.Create,
		cachetest.WriteAt, cachetest.ReadAt, cachetest.Commit, cachetest.Remove)},
	{id: "F30", what: "disk turns read-only", shown: "cache/disk TestFaultAtEveryCall; cache TestBrokenDisk, TestFolderThatVanishes", plan: planReadOnly},
	{id: "F31", what: "no inode left", shown: "cache TestNoSpaceForASpool", plan: failingCalls(syscall.ENOSPC, cachetest.Create)},
	{id: "F32", what: "disk of 64 KiB, 1 or 4 MiB a second", plan: planSlowDisk},
	{id: "F33", what: "stored blob cut, longer, gone, empty, flipped, zeroed", shown: "cache/disk TestScrubFindsDamage, TestVerify, TestSuspects", plan: planDamage},
	{id: "F34", what: "index damaged, of another version, or gone", shown: "cache/recency TestDamage, TestDamageWhileOpen, FuzzLoad; internal/state TestDamageAnywhere"},
	{id: "F35", what: "junk, foreign files, planted links", shown: "cache/disk TestForeignFiles, TestOpenRefuses"},
	{id: "F36", what: "second process on the folder", shown: "cache/disk TestLockedByAnotherProcess; e2e TestSecondProcess", share: 20, plan: planSecond},
	{id: "F37", what: "killed at a named point", shown: "e2e TestKillAtPoints"},
	{id: "F38", what: "killed at random", shown: "e2e TestKillAtRandom"},
	{id: "F39", what: "power loss", shown: "cache/disk TestPowerLossAtEveryCall, TestFaultsAndPowerLosses; cache/recency TestPowerLoss; " +
		"internal/state TestPowerLoss"},
	{id: "F40", what: "stop with pulls under way", shown: "server TestStopLetsRunningPullsFinish; e2e TestGracefulStop, TestDrainEnds", share: 50, plan: planStop},
	{id: "F41", what: "killed for lack of memory", shown: "e2e TestKillAtRandom: the kernel sends the same SIGKILL. That little memory is needed is measured, not tested here"},
	{id: "F42", what: "no file descriptor left for a connection", shown: "cache TestFlakyDisk", share: 50, plan: planDescriptors},
	{id: "F43", what: "the clock jumps", shown: "not shown: it takes a machine whose clock may be set. Waits and ages within a process are by the monotonic clock"},
	{id: "F44", what: "reloads in the middle of pulls", shown: "e2e TestReload; internal/app TestReload", share: 50, plan: planReload},
	{id: "F45", what: "stopped for 30 s, then going on", shown: "not shown: what others see of it is F4 and F5, and there is one replica"},
	{id: "F46", what: "the first client leaves", shown: "pull TestLeavingClientTakesNothingWithIt", huge: true, plan: planLeader},
	{id: "F47", what: "all clients leave, and come back", shown: "cache/flight TestWithoutReaders, TestBytesWithoutAReaderAreBounded", share: 50, plan: planAllLeave},
	{id: "F48", what: "one slow among fast ones", shown: "cache/flight TestAStuckReaderDelaysNoOther; cache TestSlowReadersPinNothing", plan: planOneSlow},
	{id: "F49", what: "requests that never end", shown: "server TestBodyThatNeverComes, TestStuckClientEnds, TestConnectionLimit", share: 10, plan: planSlowloris},
	{id: "F50", what: "ranges everywhere in a blob on its way", shown: "server TestBlobInFlight; cache/flight TestModel", huge: true, plan: planStorm},
	{id: "F51", what: "HTTP/2 streams opened and reset", shown: "not shown: HTTP/2 is off unless tls.http2 is set; server TestHTTP2Floods floods it"},
	{id: "F52", what: "names that want out", shown: "oci TestParseRequestRefuses, FuzzParseRequest; e2e TestBadInput", share: 30, plan: planPaths},
	{id: "F53", what: "a peer is dead, slow, half open, parted", shown: "not shown: there are no peers yet"},
	{id: "F54", what: "membership flaps", shown: "not shown: there are no peers yet"},
	{id: "F55", what: "object store fails", shown: "not shown: there is no object store yet"},
	{id: "F56", what: "Redis is gone", shown: "not shown: none is used"},
}

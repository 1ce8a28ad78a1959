// What builds litewitness as it is. Its module also names sigsum-go, which only another program of it (witnessctl) and its tests
// need, and which not every module proxy has: an empty module stands in, and nothing of it is compiled.
module litewitness-build

go 1.25.0

require filippo.io/torchwood v0.6.1

replace sigsum.org/sigsum-go => ./sigsum-go

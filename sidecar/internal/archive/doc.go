// Package archive knows what the bucket looks like: keys, JSON documents, compression, and the rule that the first
// writer wins. To its left one speaks of WAL and backups, to its right of keys and bytes.
//
// A root holds one database and is a WAL-G archive (basebackups_005/, wal_005/) with our own documents beside it:
//
//	basebackups_005/<backup>/tar_partitions/…        snapshots as WAL-G lays them out
//	basebackups_005/<backup>/outrider.json           Manifest: every part with size and CRC64
//	basebackups_005/<backup>_backup_stop_sentinel.json
//	wal_005/<segment>.zst, <timeline>.history.zst
//	outrider/cluster.json                            Cluster: the one system identifier of this root
//	outrider/epochs/<n>.json                         Epoch: who writes, created once
//	outrider/timelines/<tli>.json                    TimelineClaim: which epoch owns a timeline, created once
//	outrider/tail/<segment>/<epoch>/<from>-<to>.zst  Chunk: WAL not yet sealed
//	outrider/receipts/<n>.json                       Receipt: how epoch n ended
//	outrider/heartbeats/<n>.json                     Heartbeat: replaced in place, no safety rests on it
//	outrider/journal/<n>/<time>-<event>.json         the flight recorder
//	outrider/drills/<time>.json                      Drill: how a restore drill went, in the order of the store's clock
//	outrider/drills-expected.json                    since when drills are expected, which its own age tells
//	outrider/probe                                   ProbeKey: proof that the bucket creates once; a root with it alone is empty
//
// Objects are created once. Meeting one's own content again is success, other content is ErrConflict. Content means
// the decoded bytes: their length and SHA-256 travel as object metadata, because compressed bytes differ from run to
// run. What is replaced in place: heartbeats, the receipt of a running epoch (both by their owner alone), the
// zero-padded last segment of a clean stop, and segments that a superseded writer has sealed past the start of the
// epoch that owns them, see WAL.Seal.
//
// WAL-G's delete removes whatever carries an expired run of 24 upper-case hexadecimal digits anywhere in its key, so
// only chunks (which are to expire with their segment) carry one; all other names of ours are lower case and shorter.
package archive

// Every bound of the system in one table, each with its reason. A queue that is full rejects; nothing grows without end.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace runahead::limits {

using namespace std::chrono_literals;

// HTTP (services/gateway)
inline constexpr size_t kHeaderBytesMax = 16 << 10;  // llm clients send under 2 KiB; CVE-2025-48956 sent megabytes
inline constexpr size_t kJsonBodyBytesMax = 16 << 20;  // 128k tokens of text are under 1 MiB; ids as JSON under 1 MiB
inline constexpr int kJsonDepthMax = 32;  // chat messages nest 4 deep
inline constexpr size_t kHttpConnectionsMax = 1024;  // 1,024 x 64 KiB of buffers = 64 MiB
inline constexpr size_t kHttpUnauthenticatedMax = 256;  // of them without a key yet; then the oldest goes
inline constexpr size_t kHttpHeadersMax = 64;  // clients send about 15
inline constexpr size_t kHttpReadBufferBytes = 64
                                               << 10;  // one connection's input: a whole header, or a slice of a body
inline constexpr size_t kHttpBodiesBytesMax = 64
                                              << 20;  // bodies in memory beyond those buffers, all together; then 429
// Answers beyond those buffers that wait for their readers, all together; then who has read for longest is cut.
inline constexpr size_t kHttpAnswersBytesMax = 64 << 20;
// Prompts and answers of the API's requests in work, all together, at 24 and 48 bytes a token; then 429.
inline constexpr size_t kGenerationBytesMax = 128 << 20;
// One connection: its input (64 KiB), a header twice, a body or a small answer or events that wait (64 KiB, as much on its way).
inline constexpr size_t kHttpConnectionBytes = 256 << 10;
// What the text lane has in work: 4 MiB of digits to tokenize take 232 MiB, JSON of 3 million token ids 150 (measured).
inline constexpr size_t kTextWorkBytes = 240 << 20;
inline constexpr size_t kJobTokenBytes = 64;  // of a job that runs: the prompt, the answer and both as text
inline constexpr size_t kWaitingJobBytes = 1 << 10;
inline constexpr double kApiBoundsLeast = 0.125;  // of connections, bodies, answers and requests, where memory is short
inline constexpr size_t kApiPoolBytesLeast = 16 << 20;  // of each of the last three: one body of the largest size
inline constexpr auto kHttpIdleTimeout = 120s;  // proxies keep a connection 60 to 90 s: theirs must end first
inline constexpr auto kHttpHeaderTimeout = 10s;  // from the first byte of a header to its last (slow loris)
inline constexpr auto kHttpBodyTimeout = 60s;  // 16 MiB at 280 KB/s
inline constexpr auto kHttpBodySilence = 10s;  // within a body
inline constexpr auto kHttpSendTimeout = 30s;  // a client that takes nothing for this long is gone
inline constexpr size_t kAccessLogPathBytesMax = 256;  // of a method or a path in a line of the access log
inline constexpr size_t kRequestIdBytesMax = 128;  // X-Request-Id of a client
inline constexpr auto kSsePingInterval = 1s;  // silence that proxies and people tolerate
inline constexpr size_t kSseBufferBytesMax = 64 << 10;  // one slow reader costs this much, then its decode is cancelled
inline constexpr int kStopStringsMax = 4;  // OpenAI's own bound
inline constexpr int64_t kPromptLogprobsMax = 1 << 19;  // of one answer's prompts, alternatives counted: 12 MiB as JSON
inline constexpr int kChoicesMax = 8;  // n
inline constexpr int kTopLogprobsMax = 20;  // OpenAI's own bound
inline constexpr size_t kStopStringBytesMax = 1024;  // held back text stays small
inline constexpr int kStopTokensMax = 64;
inline constexpr size_t kBannedTokensMax = 1024;  // min_tokens: kStopTokensMax and a model's end tokens, under 20
inline constexpr int kPromptChoicesMax = 64;  // prompts of one request times n
inline constexpr int64_t kAnswerShareOfKv = 8;  // a chat without max_tokens: 1/8 of a worker, so 8 run at once
inline constexpr int32_t kAnswerTokensMin = 1024;  // ... and never less than this, for small K/V memories
inline constexpr size_t kGenerationConfigBytesMax = 1 << 20;  // generation_config.json; published ones are under 1 KiB
inline constexpr int kLogitBiasMax = 1024;  // entries
inline constexpr int kMessagesMax = 4096;  // of one chat
// Worked on in the I/O thread (about 1 ms); more goes to the text lane.
inline constexpr size_t kInlineTextBytesMax = 16 << 10;
inline constexpr size_t kSmallTextBytesMax = 256 << 10;  // 64k tokens; tens of ms. One thread of the lane takes no more
inline constexpr size_t kTextQueueBytesMax = 64 << 20;  // texts waiting for the lane, about 15 s of work; then 429
inline constexpr size_t kJsonMemoryMax = 160 << 20;  // of one parsed body: 3 M token ids; one large body at a time
inline constexpr size_t kApiKeysMax = 10'000;
inline constexpr size_t kApiKeyBytesMax = 512;
inline constexpr size_t kEndedRequestsMax = 100;  // that /v1/requests still shows: 110 KB with reports of one rank
inline constexpr int kJobsListMax = 1000;  // rows of one answer
inline constexpr int64_t kJobsKeptMax = 100'000;  // ended jobs in the store: the oldest go
inline constexpr int64_t kJobsPruneEvery = 1024;  // commits between two looks at it
inline constexpr size_t kLedgerSlack = 64 << 10;  // superseded records of 128 bytes before it is written anew: 8 MiB
inline constexpr size_t kDamageLinesMax = 20;  // losses named one by one in the log at a start

// Control plane (transport/control/frame, actors)
inline constexpr uint32_t kControlFrameBytesMax = 4 << 20;  // a 512k-token prompt as varints, 3 bytes a token, and room
inline constexpr size_t kLinkQueueFramesMax = 4096;  // frames waiting on one connection before it is dropped as stuck
inline constexpr size_t kLinkQueueBytesMax = 64 << 20;  // the same bound in bytes: 16 frames of the largest size
// Received, not yet taken by the actor; then the socket waits: four frames of the largest size.
inline constexpr size_t kControlInboxBytesMax = 16 << 20;
inline constexpr size_t kUnregisteredPeersMax = 128;  // connections without a Hello; then the oldest goes
// A Hello is under 2 KiB; members send kControlFrameBytesMax.
inline constexpr uint32_t kUnregisteredFrameBytesMax = 16 << 10;
inline constexpr auto kTcpUserTimeout = 10s;  // unacknowledged bytes or a closed window this long: peer is gone
inline constexpr auto kFlushTimeout = 1s;  // what disconnect() grants the frames that still wait
inline constexpr size_t kControlInboxMessagesMax = 4096;  // received, not yet taken by the actor
inline constexpr auto kHeartbeatInterval = 250ms;  // four lost ones make a suspect
inline constexpr auto kSuspectAfter = 1s;
inline constexpr auto kLeaseDuration = 2s;  // a worker silent for this long is lost; its pages are swept
inline constexpr auto kConnectTimeout = 5s;
// Of each address but an only one; then the next (RFC 8305's delay).
inline constexpr auto kFirstConnectTimeout = 250ms;
inline constexpr size_t kAddressesMax = 16;  // of one name that are listened on or tried
inline constexpr int kAttemptsMax = 4;  // tries in a row without progress before worker_lost
inline constexpr int kAttemptsTotalMax = 256;  // tries of one request in all: ends what crashes again and again
inline constexpr auto kStallTimeout = 30s;  // of an attempt: longer than a layer of 8 B parameters on one core
inline constexpr double kStallPlanFactor = 4;  // or so many times what its plan predicts
inline constexpr auto kNoRoomTimeout = 30s;  // a request waits so long for workers that could ever take it
inline constexpr auto kAbsenceMin = 300ms;  // a loop that was away longer gives its peers that time back
inline constexpr auto kProgressInterval = 250ms;  // of one rank: a progress bar moves smoothly at four a second
// In work at once on a worker that is new, of which nobody knows whether it works; twice as many after each that goes well, and
// after a failure of its own two: the one that leaves, and one more.
inline constexpr int kAttemptsWhenFresh = 4;
inline constexpr int kAttemptsWhenHealed = 2;
inline constexpr int kAttemptsPerWorkerMax = 256;  // in work at once, if its memory holds them: 4 x the workers
inline constexpr int32_t kScoredRowsMax = 64;  // of a prompt, at once and a message: 64 x 128k logits = 32 MiB
inline constexpr size_t kWorkersRememberedMax = 128;  // speeds of workers that have gone: a file of 40 KB
inline constexpr int kWorkersMax = 64;  // `rank` label cardinality
inline constexpr auto kRefusedPauseMin = 1s;  // of a refused worker, doubling: its reason needs a person
inline constexpr auto kRefusedPauseMax = 15s;

// What peers may say (actors/coordinator/peer_checks): beyond these there is no machine, and within them arithmetic stays finite
inline constexpr size_t kPeerTextBytesMax = 256;  // names, devices: one line for people
inline constexpr size_t kPeerAddressBytesMax = 1024;  // of all transports: a host name has 255 bytes
inline constexpr size_t kPeerReasonBytesMax = 1024;  // of a failure
inline constexpr int64_t kPeerPagesMax = int64_t{1} << 40;  // pages of one worker: 64 PiB of the smallest model's
inline constexpr uint32_t kPeerAttemptsMax = 1 << 16;  // in work at once
inline constexpr double kSecondsPerTokenMin = 1e-9;  // a billion tokens a second
inline constexpr double kSecondsPerTokenMax = 1e4;  // 405 B parameters at 100 MFLOP/s
inline constexpr double kSecondsPerPairMin = 1e-15;  // likewise of attention, a (query, key) pair
inline constexpr double kSecondsPerPairMax = 10;
inline constexpr double kReportedSecondsMax = 7 * 86400;  // of any part of an attempt: a week
inline constexpr double kSampleSecondsMin = 1e-9;  // a clock's tick: shorter work was not measured
inline constexpr uint64_t kReportedBytesMax = uint64_t{1} << 50;

// Logs (base/log_limit)
inline constexpr size_t kForeignTextBytesMax = 200;  // of what a stranger says, in a line
inline constexpr int kLogBurst = 10;  // lines of one cause at once, then
inline constexpr auto kLogPause = 10s;  // one each so often, with the number of those left out

// Traces (services/tracing)
inline constexpr size_t kTracedRequestsMax = 512;  // that have ended and wait for a collector: 1 MB of four ranks each
inline constexpr size_t kTraceBatchRequests = 32;  // of one body: 0.5 MB with reports of four ranks
inline constexpr auto kTraceBatchWait = 1s;  // of a request for others
inline constexpr auto kTraceRetryPause = 1s;  // before the second and last try of a batch
inline constexpr auto kTraceExchangeTimeout = 3s;  // without a byte from the collector

// Requests (coordinator)
inline constexpr size_t kQueuedRequestsMax = 256;  // then 429
inline constexpr int64_t kQueuedTokensMax = 4 << 20;  // then 429
// A request whose first token would be further away is refused, so that a queue is over soon after the load that made it; but
// not before so many are in work: a few long prompts are no overload.
inline constexpr auto kQueueWait = 5s;
inline constexpr size_t kQueueWaitFrom = 16;
inline constexpr size_t kUnreadTokensMax = 4096;  // of one stream: then its reader is too slow and is cancelled
inline constexpr int kJobsRunningMax = 8;  // the rest wait their turn: they are durable, not urgent
inline constexpr size_t kJobsWaitingMax = 4096;  // then 429
inline constexpr auto kRequestDeadline = 600s;  // a request that names no deadline
inline constexpr auto kJobDeadline = 24h;  // a job that runs: nobody holds a connection for it
inline constexpr auto kDeadlineMax = 30 * 24h;  // of any work; travels as 32 bits of milliseconds (49 days)
inline constexpr auto kDrainTimeout = 45s;  // SIGTERM: finish what runs, then go

// Data plane (transport)
inline constexpr size_t kPageBytesMax = 16 << 20;  // 64 tokens x 128 heads x 256 dims x 2 x 4 B = 16 MiB
inline constexpr auto kPageTransferTimeout = 5s;  // without any progress on a page under way
inline constexpr int32_t kKvLayersMax = 1024;  // the deepest published models have under 130 layers
inline constexpr int32_t kKvPagesMax = 65536;  // pages a layer: 4 Mi tokens of 64 a page
// Prompts whose beginnings a prefill worker keeps: each costs the coordinator 40 bytes for 64 tokens.
inline constexpr size_t kKeptPrefixesMax = 512;
inline constexpr size_t kCacheSaltBytesMax = 256;  // a random string
inline constexpr size_t kKvStreamsMax = 1024;  // open streams of one transport, each way: 4 x the queue
// Free in /dev/shm, else no POSIX segments: those of thirty hops' ends.
inline constexpr size_t kUcxSharedMemoryBytes = 32 << 20;
inline constexpr size_t kKvGreetingsMax = 256;  // connections without a greeting, and as many that wait for
    // their stream; then the oldest goes

// Engine (model/transformer)
inline constexpr int kEngineThreadsMax = 256;  // hardware threads of the largest server we know of

inline constexpr auto kPackedCacheLockTimeout = 60s;  // for another worker to pack: 8 B parameters take about 20 s

// Model files (model/weights/gguf)
inline constexpr uint64_t kGgufKeysMax = 1'000'000;
inline constexpr uint64_t kGgufTensorsMax = 1'000'000;
inline constexpr uint64_t kGgufNameBytesMax = 65535;  // keys and tensor names: the format's own bound
inline constexpr uint64_t kGgufStringBytesMax = 64 << 20;
inline constexpr uint64_t kGgufArrayMax = 16 << 20;  // 16 M entries: eight times the largest vocabulary seen
inline constexpr uint64_t kGgufAlignmentMax = 1 << 20;
inline constexpr uint64_t kGgufSplitsMax = 1024;
inline constexpr uint64_t kSafetensorsHeaderBytesMax = 100'000'000;  // the format's own bound
inline constexpr uint64_t kHfFileBytesMax = 64 << 20;  // config.json and the like; Gemma 3's tokenizer.json has 33 MB
inline constexpr int kHfJsonDepthMax = 64;
inline constexpr size_t kHfJsonMemoryMax = size_t{1} << 30;  // by the count of base/parsed_json: Gemma 3 has 300 MB
inline constexpr uint64_t kHfShardsMax = 1024;
inline constexpr uint64_t kModelLayersMax = 1024;  // eight times the deepest model known (Llama 3.1 405B: 126)
inline constexpr uint64_t kModelDimMax = 1 << 20;  // model_dim and ffn_dim; Llama 3.1 405B: 53,248
inline constexpr uint64_t kModelHeadsMax = 1024;  // Llama 3.1 405B: 128
inline constexpr uint64_t kModelHeadDimMax = 1024;  // Gemma: 256
inline constexpr uint64_t kModelExpertsMax =
    1024;  // of a layer; four times the most of a published model with such layers
inline constexpr uint64_t kModelContextMax = 16 << 20;  // tokens; Llama 4 Scout: 10 M
inline constexpr int64_t kVocabMax = 4 << 20;  // Gemma 3: 262,144
inline constexpr size_t kKvOverridesMax = 64;  // --override-kv: people set one to five
inline constexpr size_t kKvOverrideBytesMax = 64 << 10;  // one of them: a chat template in a flag and room

// Tokenizer (model/tokenizer)
inline constexpr size_t kTextBytesMax = 64 << 20;  // 16 M tokens of text, beyond every context
inline constexpr uint32_t kRegexStepsMax = 1 << 30;  // PCRE2's match limit: 16 steps a byte of the largest text

// Chat templates (model/chat_template)
inline constexpr size_t kTemplateBytesMax = 1 << 20;
inline constexpr size_t kTemplateOutputBytesMax = 64 << 20;
inline constexpr uint64_t kTemplateStepsMax = 10'000'000;  // evaluated nodes: ends hostile loops
inline constexpr int kTemplateDepthMax = 128;  // nesting of blocks, expressions and macro calls

// Grammars of structured answers (model/grammar)
inline constexpr size_t kGrammarBytesMax = 128 << 10;  // OpenAI takes 120,000 characters of names and values
inline constexpr size_t kGrammarNodesMax = 100'000;  // 13 MB while it is in use; 10,000 enumerated words take a third
inline constexpr size_t kGrammarStacksMax = 1024;  // that a place may have: kGrammarOptionalMax fields, and room
inline constexpr int kGrammarOptionalMax = 400;  // fields in a row that may be left out: any of them may be next
inline constexpr size_t kGrammarStacksAPlace = 32;  // on the average, before all are forgotten
inline constexpr size_t kGrammarPlacesMax = 4096;  // 1 KiB each, then all are forgotten; one mask: four times as many
inline constexpr size_t kGrammarMaskBytes = 4 << 20;  // of kept masks: 680 for 49k tokens, 130 for 256k
inline constexpr uint64_t kGrammarMaskWorkMax = 2'000'000;  // stacks made for one mask: a tenth of a second
inline constexpr size_t kGrammarsKept = 8;  // that a worker has ready, the last used
inline constexpr size_t kGrammarHeldBytes = 35'000'000;  // one of them at the very most
inline constexpr int kGrammarPatternDepthMax = 64;  // groups in a regular expression
inline constexpr int kGrammarRepeatMax = 10'000;  // {n}, minLength, maxItems and the like

}  // namespace runahead::limits

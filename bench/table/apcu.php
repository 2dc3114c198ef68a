<?php
// The PHP side of apcu.c: does what it is asked for on its standard input, and answers how long it took.
//
//     request  operation count workers nanoseconds LF, then count handles of 8 bytes
//     answer   nanoseconds of `count` operations, operations per microsecond of a mix, ...
//
// A record is a string of 192 bytes under s:<handle>, which APCu copies out; last-seen is an integer
// under a key of its own.  What the same loop takes without APCu is subtracted.

const TOUCH_EVERY = 20, BATCH = 100, AT_METADATA = 112, VALUE_BYTES = 16, FIRST_SEEN = 1700000000000;

function record(int $handle): string
{
    $player = '#' . $handle % 100000000 . ':1234';
    return pack('PPPP', 1700000000000, 1700000000000, $handle, 1) .
        pack('a16a16a32a16', $player, '203.0.113.7', 'dsl-7.example.net', 'telnet') .
        pack('a80', 'Mudlet 4.17.2 ok');
}

function fill(int $sessions): void
{
    for ($handle = 1; $handle <= $sessions; $handle++) {
        if (!apcu_store("s:$handle", record($handle)) || !apcu_store("t:$handle", FIRST_SEEN)) {
            throw new Exception("no room for session $handle");
        }
    }
}

/** Nanoseconds of $body, without those of $empty on the same keys; $body returns how many it did. */
function clocked(array $keys, callable $body, callable $empty): int
{
    $start = hrtime(true);
    $done = $body($keys);
    $took = hrtime(true) - $start;
    if ($done !== count($keys)) {
        throw new Exception("$done instead of " . count($keys) . ' operations did what they should');
    }
    $start = hrtime(true);
    $empty($keys);
    return max(1, $took - (hrtime(true) - $start));
}

function no_get(array $keys): int
{
    $done = 0;
    foreach ($keys as $key) {
        $done += $key !== false;
    }
    return $done;
}

function copies(array $keys): int
{
    $done = 0;
    foreach ($keys as $key) {
        $done += apcu_fetch($key) !== false;
    }
    return $done;
}

function misses(array $keys): int
{
    $done = 0;
    foreach ($keys as $key) {
        $done += apcu_fetch($key) === false;
    }
    return $done;
}

/** Keys come as arrays of at most BATCH. */
function batches(array $batches): int
{
    $done = 0;
    foreach ($batches as $keys) {
        $done += count(apcu_fetch($keys)) === count(array_unique($keys));
    }
    return $done;
}

function no_batches(array $batches): int
{
    $done = 0;
    foreach ($batches as $keys) {
        $done += count($keys) === count(array_unique($keys));
    }
    return $done;
}

function touches(array $keys): int
{
    $done = 0;
    $now = hrtime(true);
    foreach ($keys as $key) {
        $done += apcu_store($key, ++$now);
    }
    return $done;
}

/** Fetch, change, store: what is changed at the same time elsewhere may be lost. */
function sets(array $keys): int
{
    $done = 0;
    $now = hrtime(true);
    foreach ($keys as $key) {
        $value = pack('PP', ++$now, 0);
        $done += apcu_store($key, substr_replace(apcu_fetch($key), $value, AT_METADATA, VALUE_BYTES));
    }
    return $done;
}

function inserts(array $keys): int
{
    $done = 0;
    $record = record(1);
    foreach ($keys as $key) {
        $done += apcu_store($key, $record) && apcu_delete($key);
    }
    return $done;
}

/** Walks until as many sessions were seen as there are keys. */
function scans(array $keys): int
{
    $seen = 0;
    do {
        $before = $seen;
        foreach (new APCUIterator('/^s:/', APC_ITER_VALUE) as $entry) {
            $seen += strlen($entry['value']) === 192;
        }
    } while ($seen < count($keys) && $seen > $before);
    return $seen;
}

/** Operations per microsecond of this process for so many nanoseconds. */
function mix(array $keys, array $seen_keys, int $until): float
{
    $done = 0;
    $start = hrtime(true);
    while (($now = hrtime(true)) < $until) {
        foreach ($keys as $i => $key) {
            if ($i % TOUCH_EVERY) {
                apcu_fetch($key);
            } else {
                apcu_store($seen_keys[$i], ++$now);
            }
            if (++$done % 64 === 0 && hrtime(true) > $until) {
                break;
            }
        }
    }
    return 1000.0 * $done / (hrtime(true) - $start);
}

/** The same of so many processes together. */
function mixes(array $keys, array $seen_keys, int $workers, int $nanoseconds): float
{
    $ends = [];
    $warm = $workers > 1 ? 20000000 : 0; // until all are there
    $until = hrtime(true) + $warm + $nanoseconds;
    while (--$workers > 0) {
        [$mine, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
        if (pcntl_fork() === 0) {
            fwrite($theirs, mix($keys, $seen_keys, $until) . "\n");
            exit(0);
        }
        fclose($theirs);
        $ends[] = $mine;
    }
    $rate = mix($keys, $seen_keys, $until);
    foreach ($ends as $end) {
        $rate += (float) fgets($end);
        pcntl_wait($status);
    }
    return $rate;
}

function keys(string $kind, array $handles): array
{
    return array_map(fn ($handle) => "$kind:$handle", $handles);
}

function answer(string $operation, array $handles, int $workers, int $nanoseconds): string
{
    $s = keys('s', $handles);
    $answer = match ($operation) {
        'ready' => 0,
        'copy' => clocked($s, 'copies', 'no_get'),
        'miss' => clocked($s, 'misses', 'no_get'),
        'batch' => clocked(array_chunk($s, BATCH), 'batches', 'no_batches'),
        'touch' => clocked(keys('t', $handles), 'touches', 'no_get'),
        'set' => clocked($s, 'sets', 'no_get'),
        'insert+remove' => clocked($s, 'inserts', 'no_get'),
        'scan' => clocked($s, 'scans', 'no_get'),
        'mix' => mixes($s, keys('t', $handles), $workers, $nanoseconds),
        'read' => bin2hex(apcu_fetch($s[0])) . ' ' . apcu_fetch("t:{$handles[0]}"),
        'bytes' => apcu_sma_info(true)['seg_size'] - apcu_sma_info(true)['avail_mem'],
    };
    return "ok $answer";
}

try {
    fill((int) $argv[1]);
    while (($line = fgets(STDIN)) !== false) {
        [$operation, $count, $workers, $nanoseconds] = explode(' ', trim($line));
        $packed = $count > 0 ? stream_get_contents(STDIN, 8 * (int) $count) : '';
        $handles = array_values($count > 0 ? unpack('P*', $packed) : []);
        echo answer($operation, $handles, (int) $workers, (int) $nanoseconds), "\n";
    }
} catch (Throwable $e) {
    echo 'failed ', str_replace("\n", ' ', $e->getMessage()), "\n";
}

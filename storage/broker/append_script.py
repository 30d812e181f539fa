"""The Lua script that appends to event logs and publishes what it accepted to those who read the logs.

KEYS: the set of taps, then for each job of the batch, in the order in which the jobs first occur, its log and the set
of its readers. Every key that the script touches is one of these.

ARGV: batch (source, number, rows), seconds a running log lives after its last sign of life, seconds an ended log lives.

A log begins with a START, or with the END that no attempt wrote: both have seq 0. Any other entry for a missing log
belongs after entries that were lost, and would leave a gap. A worker's END repeats what the row says: it is published,
but it creates no log.

Accepted rows are published once for each reader, as one message with the rows of the jobs that it reads; taps get all.
A reader that nobody listens for any more (a process that died) is removed. Nothing follows an END, so its readers are
forgotten.

An entry that cannot be added for another reason than its id ends the script with that error. The caller repeats the
batch; entries that are in already are neither added nor published twice.
"""

import hashlib

READER_CHANNEL_PREFIX = "tokenpost:reader:"

SCRIPT = """
local batch = cmsgpack.unpack(ARGV[1])
local places, num_jobs, readers_by_place = {}, 0, {}
local taps = redis.call('SMEMBERS', KEYS[1])
local rows_by_reader, places_by_reader, ended = {}, {}, {}
local fenced, lost, is_listed, failure = {}, {}, {}, nil

local function deliver_to(reader, row, place)
  local rows = rows_by_reader[reader]
  if not rows then
    rows = {}
    rows_by_reader[reader], places_by_reader[reader] = rows, {}
  end
  rows[#rows + 1] = row
  places_by_reader[reader][place] = true
end

local function deliver(row, place)
  local readers = readers_by_place[place]
  if not readers then
    readers = redis.call('SMEMBERS', KEYS[2 * place + 1])
    readers_by_place[place] = readers
  end
  for i = 1, #readers do deliver_to(readers[i], row, place) end
  for i = 1, #taps do deliver_to(taps[i], row, 0) end
end

for _, row in ipairs(batch[3]) do
  local job_id, attempt, seq, kind, data = unpack(row)
  local place = places[job_id]
  if not place then
    num_jobs = num_jobs + 1
    place = num_jobs
    places[job_id] = place
  end
  local key, id = KEYS[2 * place], attempt .. '-' .. seq
  local reply = redis.pcall('XADD', key, 'NOMKSTREAM', id, 'k', kind, 'd', data)
  local is_new = not reply
  if is_new and seq == 0 then reply = redis.pcall('XADD', key, id, 'k', kind, 'd', data) end
  if not reply then
    if kind == 2 then
      deliver(row, place)
      ended[#ended + 1] = place
    elseif not is_listed[job_id] then
      is_listed[job_id] = true
      lost[#lost + 1] = job_id
    end
  elseif type(reply) ~= 'table' then
    deliver(row, place)
    if kind == 2 then
      redis.call('EXPIRE', key, ARGV[3])
      ended[#ended + 1] = place
    elseif is_new or seq % 256 == 0 then
      redis.call('EXPIRE', key, ARGV[2])
      redis.call('EXPIRE', KEYS[2 * place + 1], ARGV[2])
    end
  elseif not string.find(reply.err, 'equal or smaller', 1, true) then
    failure = reply
    break
  else
    local last_id = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1][1]
    if tonumber(string.match(last_id, '^%d+')) > attempt and not is_listed[job_id] then
      is_listed[job_id] = true
      fenced[#fenced + 1] = job_id
    end
  end
end

for reader, rows in pairs(rows_by_reader) do
  local message = ARGV[1]
  if #rows < #batch[3] then message = cmsgpack.pack({batch[1], batch[2], rows}) end
  if redis.call('PUBLISH', 'READER_CHANNEL_PREFIX' .. reader, message) == 0 then
    for place in pairs(places_by_reader[reader]) do redis.call('SREM', KEYS[2 * place + 1], reader) end
  end
end
for _, place in ipairs(ended) do redis.call('DEL', KEYS[2 * place + 1]) end
return failure or {fenced, lost}
""".replace("READER_CHANNEL_PREFIX", READER_CHANNEL_PREFIX)
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

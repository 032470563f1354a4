-- May this call pass? Everything it asks of the limits that replicas share, decided at once: all or nothing.
--
-- In:  KEYS, each once; ARGV[1] 'take' or 'refund'; then six values for each key: its kind and five numbers.
--        rate      burst, cost, must pass (1 or 0), tokens a second, -
--        calendar  units, cost, must pass, start and end of its window in unix seconds
--        sliding   units, cost, must pass, length of a slice in microseconds, moment of the take (refund)
-- Out: take:   {1, s, us, poisoned, remaining, taken, remaining, taken, ...}
--              {0, s, us, poisoned, index of the demand that refuses longest, remaining of it, wait in us or -1}
--              {2, s, us, 0} where the clock of this server is in another calendar window than the keys
--      refund: how many keys were changed.
--      s, us: this server's time. It is the only clock: those of the replicas need not agree.
-- Kept: text under each key, which expires when it says no more than an absent one.
--        rate      tokens that are missing, and since when, in microseconds
--        calendar  units used; the window is part of the key
--        sliding   slice:units,slice:units,... oldest first
--      Text of another form is never believed: it counts as an empty bucket, and is put right.
--
-- The only command that writes is SET: a server that is full or a replica refuses the first one and nothing has
-- happened, and whoever may not write cannot have written half.

-- Millionths of a token are rounding errors of doubles.
local GRAIN = 0.000001
local SLICES = 60
-- The longest text we write has 61 slices: 13 digits, a colon, 15 digits, a comma.
local LONGEST = 2000
-- Doubles count units exactly up to here.
local MOST_DIGITS = 15
-- Thirty years: a longer wait or life is no number to reckon with.
local LONGEST_MS = 1000000000000

-- What is kept under a key: '' where there is nothing, nil where it is no text or too long, and the error where the
-- server has one.
local function kept(key)
  -- Never a whole value: a stranger's may be half a gigabyte.
  local text = redis.pcall('GETRANGE', key, 0, LONGEST)
  if type(text) == 'table' then
    if string.sub(text.err or '', 1, 9) == 'WRONGTYPE' then return nil end
    return nil, text
  end
  if text == '' and redis.call('EXISTS', key) == 1 then return nil end
  if #text > LONGEST then return nil end
  return text
end

local function keep(key, text, ms)
  redis.call('SET', key, text, 'PX', string.format('%.0f', math.max(1, math.min(ms, LONGEST_MS))))
end

-- Digits → number; nil for more of them than are exact.
local function count(digits)
  if #digits > MOST_DIGITS then return nil end
  return tonumber(digits)
end

local function whole(number)
  return math.max(0, math.floor(number + GRAIN))
end

-- Each kind below: from what is kept, the state at `now`, how much is free, and whether it has to be put right:
-- POISONED, or MOVED where the clock went back. What is in the future counts as now: it must not block for as long.
local POISONED, MOVED = 1, 2

local function rate(text, now, burst, per_s)
  local missing, since
  if text == '' then
    return 0, burst, false
  elseif text then
    missing, since = string.match(text, '^(%d[%d.e+-]*) (%d+)$')
    missing, since = tonumber(missing), since and tonumber(since)
  end
  if not (missing and since and missing >= 0 and missing < math.huge) then return burst, 0, POISONED end
  -- Where the burst has become smaller, the bucket is empty at worst.
  missing = math.max(0, missing - math.max(0, now - since) * per_s / 1000000)
  if missing > burst + 2 * GRAIN then missing = burst end
  return missing, burst - missing, since > now and MOVED
end

local function calendar(text, units)
  if text == '' then return 0, units, false end
  local used = text and string.match(text, '^%d+$') and count(text)
  if not used then return units, 0, POISONED end
  used = math.min(used, units)
  return used, units - used, false
end

-- A calendar window is remembered a while after its end: a clock that is set back at midnight must not give a day twice.
local function life_ms(s, start, ends)
  return (ends - s + math.min(ends - start, 3600)) * 1000
end

-- Slices that still count, as a list of {slice, units}.
local function sliding(text, now, units, slice_us)
  local current = math.floor(now / slice_us)
  if text == '' then return {}, units, false end
  local slices, used, last, length, moved = {}, 0, -1, 0, false
  for slice, taken in string.gmatch(text or '', '(%d+):(%d+)') do
    length = length + #slice + #taken + 2
    slice, taken = count(slice), count(taken)
    if not slice or not taken or slice <= last then length = -1 break end
    last = slice
    if slice > current then slice, moved = current, MOVED end
    -- A slice counts until its last moment is a whole window ago.
    if slice >= current - SLICES then
      if #slices > 0 and slices[#slices][1] == slice then
        slices[#slices][2] = slices[#slices][2] + taken
      else
        slices[#slices + 1] = {slice, taken}
      end
      used = used + taken
    end
  end
  if length ~= (text and #text + 1) or string.find(text, '[^%d:,]') then
    return {{current, units}}, 0, POISONED
  end
  return slices, math.max(0, units - used), moved
end

local function written(slices)
  local parts = {}
  for i, slice in ipairs(slices) do parts[i] = string.format('%.0f:%.0f', slice[1], slice[2]) end
  return table.concat(parts, ',')
end

-- How long until `lacking` units have left a sliding window.
local function slide(slices, now, slice_us, lacking)
  for _, slice in ipairs(slices) do
    lacking = lacking - slice[2]
    if lacking <= 0 then return (slice[1] + SLICES + 1) * slice_us - now end
  end
  return (math.floor(now / slice_us) + SLICES + 1) * slice_us - now
end

local function take(s, us)
  local now = s * 1000000 + us
  local plans, poisoned = {}, 0
  local index, longest, left = nil, -1, 0
  for i, key in ipairs(KEYS) do
    local at = i * 6 - 4
    local kind, most, cost, must = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3] == '1'
    local a, b = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
    if kind == 'calendar' and (s < a or s >= b) then return {2, s, us, 0} end
    local text, failure = kept(key)
    if failure then return failure end
    local state, free, bad
    local blocked = most <= 0 or (kind == 'rate' and a <= 0)
    if blocked then
      state, free, bad = false, 0, false
    elseif kind == 'rate' then
      state, free, bad = rate(text, now, most, a)
    elseif kind == 'calendar' then
      state, free, bad = calendar(text, most)
    else
      state, free, bad = sliding(text, now, most, a)
    end
    if bad == POISONED then poisoned = poisoned + 1 end
    local taken = must and math.min(cost, math.max(0, free)) or cost
    plans[i] = {kind, state, free, bad, taken, a, b}
    if not must and (blocked or cost > free + GRAIN) then
      local wait = math.huge
      if not blocked and cost <= most then
        if kind == 'rate' then wait = math.ceil((cost - free - GRAIN / 2) * 1000000 / a)
        elseif kind == 'calendar' then wait = b * 1000000 - now
        else wait = slide(state, now, a, cost - free) end
        wait = math.max(1, math.min(wait, LONGEST_MS * 1000))
      end
      if wait > longest then index, longest, left = i, wait, whole(free) end
    end
  end
  local answer = {1, s, us, poisoned}
  for i, key in ipairs(KEYS) do
    local kind, state, free, bad, taken, a, b = unpack(plans[i])
    if index then taken = 0 end
    answer[i * 2 + 3], answer[i * 2 + 4] = whole(free - taken), whole(taken)
    -- What was wrong is put right whatever the decision: an empty bucket has to fill again.
    if state and (taken > 0 or bad) then
      if kind == 'rate' then
        local missing = state + taken
        keep(key, string.format('%.17g %.0f', missing, now), math.ceil(missing / a * 1000) + 1000)
      elseif kind == 'calendar' then
        keep(key, string.format('%.0f', state + taken), life_ms(s, a, b))
      else
        local current, newest = math.floor(now / a), state[#state]
        if newest and newest[1] == current then newest[2] = newest[2] + taken
        else state[#state + 1] = {current, taken} end
        keep(key, written(state), math.ceil(a * (SLICES + 1) / 1000) + 1000)
      end
    end
  end
  if index then return {0, s, us, poisoned, index, left, longest == math.huge and -1 or longest} end
  return answer
end

-- Quotas only, and only in the window that the units were taken from: what has expired is not begun anew.
local function refund(s, us)
  local now, changed = s * 1000000 + us, 0
  for i, key in ipairs(KEYS) do
    local at = i * 6 - 4
    local kind, cost = ARGV[at], tonumber(ARGV[at + 2])
    local a, b = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
    local text, failure = kept(key)
    if failure then return failure end
    if text and text ~= '' then
      local state, _, bad
      if kind == 'calendar' then
        state, _, bad = calendar(text, math.huge)
        if not bad and s < b then
          keep(key, string.format('%.0f', math.max(0, state - cost)), life_ms(s, a, b))
          changed = changed + 1
        end
      else
        state, _, bad = sliding(text, now, 0, a)
        local slice = math.floor(b / a)
        for _, each in ipairs(bad == POISONED and {} or state) do
          if each[1] == slice then
            each[2] = math.max(0, each[2] - cost)
            keep(key, written(state), math.ceil(a * (SLICES + 1) / 1000) + 1000)
            changed = changed + 1
          end
        end
      end
    end
  end
  return changed
end

local function decide(s, us)
  if ARGV[1] == 'refund' then return refund(s, us) end
  return take(s, us)
end

-- Requests of a backend wait here while its only server restarts.
--
-- The bound is kept here, by the proxy itself: a hold ends by itself after its seconds, and beyond its most waiting requests the others are
-- answered 503 at once. Whoever asked for the hold may have died meanwhile.
--
-- In haproxy.cfg:   global      lua-load /path/to/hold.lua        (not lua-load-per-thread: each thread would have holds of its own)
--                   backend X   http-request lua.rollout_hold
-- On the stats socket (level admin): rollout-hold X SECONDS MOST, rollout-let-go X, rollout-holds.
-- A reload forgets a hold: the new process lets everything through.

local STEP_MIN_MS = 20 -- how late a request goes on at least, when few wait
local STEP_MAX_MS = 250
local WAITING_PER_MS = 8 -- so many that wait lengthen the step by one millisecond, so that thousands don't keep the proxy busy
-- The first that came goes first, and not all at once: the server has just started. All together would be slow for each; one after the other
-- none waits longer than the first. What stays open for long (a long-poll) holds nobody else up: the slower pace goes on whatever is under way.
local LET_GO_PER_S = 250
local LET_GO_ANYWAY_PER_S = 50
local UNDER_WAY_MAX = 12
local LET_GO_STEP_MS = 5
local SILENT_S = 2 * STEP_MAX_MS / 1000 -- who has not looked for so long isn't waited for by those behind
local SWEEP_MS = 100
local GONE_S = 2 -- who has not looked for so long has hung up: HAProxy drops its coroutine without a word

local backends = {} -- name -> what is known of it

local function now_s()
    local now = core.now()
    return now.sec + now.usec / 1e6
end

local function backend_of(name)
    if backends[name] == nil then
        backends[name] = { passed = 0, waiting = {}, waiting_count = 0, waiting_max = 0, shed = 0, late = 0, hold = nil, next = 0 }
    end
    return backends[name]
end

local function step_ms(backend)
    return math.min(STEP_MAX_MS, STEP_MIN_MS + backend.waiting_count // WAITING_PER_MS)
end

local function leave(backend, me)
    if backend.waiting[me] ~= nil then
        backend.waiting[me] = nil
        backend.waiting_count = backend.waiting_count - 1
    end
end

local function under_way(name)
    local count = 0
    for _, server in pairs(core.backends[name].servers) do
        count = count + server:get_stats().scur
    end
    return count
end

-- Whether *me* may go on, of those who waited for *hold*.
local function may_go(name, backend, hold, me)
    while hold.head < me and now_s() - (backend.waiting[hold.head] or 0) > SILENT_S do
        hold.head = hold.head + 1
    end
    local since_s, place = now_s() - (hold.ended_s or hold.until_s), me - hold.first
    if hold.head < me or place > since_s * LET_GO_PER_S then
        return false
    end
    return place <= since_s * LET_GO_ANYWAY_PER_S or under_way(name) < UNDER_WAY_MAX
end

local function refuse(txn, seconds)
    local reply = txn:reply()
    reply:set_status(503, "Service Unavailable")
    reply:add_header("Content-Type", "application/json")
    reply:add_header("Access-Control-Allow-Origin", "*")
    reply:add_header("Retry-After", string.format("%d", math.max(1, math.ceil(seconds))))
    reply:set_body('{"errcode":"M_UNKNOWN","error":"The server is restarting, and too many requests wait for it already"}')
    txn:done(reply)
end

core.register_action("rollout_hold", { "http-req" }, function(txn)
    local name = txn.f:be_name()
    local backend = backend_of(name)
    backend.passed = backend.passed + 1
    local hold = backend.hold
    if hold == nil then
        return
    end
    if backend.waiting_count >= hold.most then
        backend.shed = backend.shed + 1
        return refuse(txn, hold.until_s - now_s())
    end
    backend.next = backend.next + 1
    local me = backend.next
    backend.waiting_count = backend.waiting_count + 1
    backend.waiting[me] = now_s() -- with the count: who comes after the hold's time, before its sweep, may not have to wait at all
    backend.waiting_max = math.max(backend.waiting_max, backend.waiting_count)
    while backend.hold == hold and now_s() < hold.until_s do
        backend.waiting[me] = now_s()
        core.msleep(step_ms(backend))
    end
    if hold.ended_s == nil then
        backend.late = backend.late + 1
    end
    while not may_go(name, backend, hold, me) do
        backend.waiting[me] = now_s()
        core.msleep(math.min(STEP_MAX_MS, LET_GO_STEP_MS + (me - hold.head)))
    end
    leave(backend, me)
end)

-- Ends what is over, and forgets who has hung up.
core.register_task(function()
    while true do
        for _, backend in pairs(backends) do
            if backend.hold ~= nil and now_s() >= backend.hold.until_s then
                backend.hold = nil
            end
            for me, looked_s in pairs(backend.waiting) do
                if now_s() - looked_s > GONE_S then
                    leave(backend, me)
                end
            end
        end
        core.msleep(SWEEP_MS)
    end
end)

local function answer(applet, text)
    applet:send(text .. "\n")
end

core.register_cli({ "rollout-hold" }, "rollout-hold BACKEND SECONDS MOST : let new requests wait", function(applet, _, name, seconds, most)
    local hold_s, hold_max = tonumber(seconds), tonumber(most)
    if name == nil or hold_s == nil or hold_max == nil then
        return answer(applet, "rollout-hold BACKEND SECONDS MOST\n")
    end
    if core.backends[name] == nil then
        return answer(applet, "No such backend.\n")
    end
    local backend = backend_of(name)
    if backend.hold == nil then
        backend.hold = { since_s = now_s(), until_s = now_s() + hold_s, most = hold_max, first = backend.next + 1, head = backend.next + 1 }
        backend.waiting_max = 0
    end
    answer(applet, "")
end)

core.register_cli({ "rollout-let-go" }, "rollout-let-go BACKEND             : let what waits go on", function(applet, _, name)
    if name == nil or core.backends[name] == nil then
        return answer(applet, "No such backend.\n")
    end
    local backend = backend_of(name)
    if backend.hold ~= nil then
        backend.hold.ended_s = now_s()
        backend.hold = nil
    end
    answer(applet, "")
end)

core.register_cli({ "rollout-holds" }, "rollout-holds                      : what waits", function(applet)
    local lines = { "# backend,passed,held_for_s,waiting,waiting_max,shed,late" }
    for name, backend in pairs(backends) do
        local held = backend.hold ~= nil and string.format("%.3f", now_s() - backend.hold.since_s) or ""
        local counts = { backend.passed, held, backend.waiting_count, backend.waiting_max, backend.shed, backend.late }
        lines[#lines + 1] = name .. "," .. table.concat(counts, ",")
    end
    answer(applet, table.concat(lines, "\n") .. "\n")
end)

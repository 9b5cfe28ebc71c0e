-- Requests of an upstream wait here while its only server restarts: what hold.lua is for HAProxy, for nginx's ngx_http_lua_module.
--
-- The bound is kept here, by nginx itself: a hold ends by itself after its seconds, and beyond its most waiting requests the others are
-- answered 503 at once. Whoever asked for the hold may have died meanwhile. A reload forgets nothing.
--
-- It stands as hold.lua beside the file of upstreams. In nginx.conf:
--     http {      lua_package_path "/etc/nginx/rollout/?.lua;;";  lua_shared_dict rollout_hold 4m;
--     location X  { access_by_lua_block { require("hold").wait("UPSTREAM") }  log_by_lua_block { require("hold").over() }  proxy_pass http://UPSTREAM; }
--     server {    listen 127.0.0.1:9145;  access_log off;  location / { content_by_lua_block { require("hold").tell() } } }
-- What shall be held is said by files beside this one, which only those can write who may: .hold.UPSTREAM has a line, SINCE UNTIL MOST
-- (seconds since the epoch, twice, and a number). What came of it is told by the page.

local STEP_MIN_S = 0.02 -- how late a request goes on at least, when few wait
local STEP_MAX_S = 0.25
local STEP_MORE_S = 0.001 / 8 -- for each that waits, so that thousands don't keep nginx busy
-- The first that came goes first, and who comes now goes behind them: the server has just started, and is slow for everybody when it gets
-- all at once. A next one goes when an earlier one is answered, so that a cold server sets the pace. What stays open for long (a long-poll) is
-- never answered so soon: as many as were under way before the hold may be again, and with each second some more.
local UNDER_WAY_MIN = 12
local UNDER_WAY_MORE_PER_S = 10
local LET_GO_PER_S = 250
local LET_GO_PER_ARRIVAL = 4 -- or so many times as fast as they came, if that is more
local BEHIND_S = 10 -- after so long nobody goes behind the others any more: they are not let go as fast as others come
local LET_GO_STEP_S = 0.005
local LET_GO_MORE_S = 0.001 -- for each that is before it
local SILENT_S = 3 * STEP_MAX_S -- who has not looked for so long isn't waited for by those behind
local COUNTED_S = 3

local DIRECTORY = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
-- Of all nginx's processes together; a value that isn't there yet is nil.
local shared = ngx.shared.rollout_hold

local hold = {}

local function now_s()
    ngx.update_time()
    return ngx.now()
end

local function get(name, what, otherwise)
    return shared:get(what .. ":" .. name) or otherwise
end

local function set(name, what, value)
    shared:set(what .. ":" .. name, value)
end

local function add(name, what, number)
    return shared:incr(what .. ":" .. name, number, 0)
end

-- Returns what the file says is to be held; nil where nothing is.
local function wanted(name)
    local file = io.open(DIRECTORY .. "/.hold." .. name)
    if file == nil then
        return nil
    end
    local since_s, until_s, most = (file:read("*l") or ""):match("^(%S+) (%S+) (%d+)$")
    file:close()
    since_s, until_s, most = tonumber(since_s), tonumber(until_s), tonumber(most)
    return most and since_s and until_s and { since_s = since_s, until_s = until_s, most = most }
end

local function is_waiting(name, ticket)
    return shared:get("waits:" .. name .. ":" .. ticket) ~= nil
end

local function begin(name, held)
    if not shared:add("begun:" .. name .. ":" .. held.since_s, true, held.until_s - held.since_s + 60) then
        return -- another process is at it
    end
    -- Those of an earlier hold that still wait are counted anew: a process that was killed has left its own behind.
    local waiting, last = 0, get(name, "next", 0)
    for ticket = get(name, "head", 1), last do
        waiting = waiting + (is_waiting(name, ticket) and 1 or 0)
    end
    set(name, "waiting", waiting)
    set(name, "waiting_max", 0)
    set(name, "first", last + 1)
    set(name, "usual", get(name, "under_way", 0))
    set(name, "until_s", held.until_s)
    set(name, "most", held.most)
    shared:delete("ended_s:" .. name)
    set(name, "since_s", held.since_s)
end

-- Returns the hold under way; nil, once its end is noted, when there is none.
local function current(name)
    local held, at_s, since_s = wanted(name), now_s(), get(name, "since_s")
    if held and at_s < held.until_s then
        if since_s ~= held.since_s then
            begin(name, held)
        end
        return held
    end
    if since_s and get(name, "ended_s") == nil then
        local ended_s = math.min(at_s, get(name, "until_s", at_s))
        local came = get(name, "next", 0) + 1 - get(name, "first", 1)
        set(name, "per_s", math.max(LET_GO_PER_S, LET_GO_PER_ARRIVAL * came / math.max(1, ended_s - since_s)))
        shared:add("ended_s:" .. name, ended_s)
    end
    return nil
end

local function stay(name, me, seconds)
    shared:set("waits:" .. name .. ":" .. me, true, SILENT_S)
    ngx.sleep(seconds)
end

-- Whether *me* may go on, of those who waited or came behind them.
local function may_go(name, me)
    local head = get(name, "head", 1)
    while head < me and not is_waiting(name, head) do
        head = head + 1
    end
    set(name, "head", head)
    local since_s = now_s() - get(name, "ended_s", 0)
    if head < me or me - get(name, "first", 1) > since_s * get(name, "per_s", LET_GO_PER_S) then
        return false, me - head
    end
    return get(name, "under_way", 0) < math.max(UNDER_WAY_MIN, get(name, "usual", 0)) + UNDER_WAY_MORE_PER_S * since_s, 0
end

-- Waits until the request may go on. Returns in how many seconds the hold ends if there is no room to wait.
local function wait(name)
    if shared:add("known:" .. name, true) then
        shared:set("name:" .. shared:incr("names", 1, 0), name)
    end
    add(name, "passed", 1)
    shared:incr("came:" .. name .. ":" .. math.floor(now_s()), 1, 0, COUNTED_S)
    local held = current(name)
    local waiting = get(name, "waiting", 0)
    if held and waiting >= held.most then
        add(name, "shed", 1)
        return held.until_s - now_s()
    end
    if not held then
        local ended_s = get(name, "ended_s")
        if ended_s == nil or waiting <= 0 or waiting >= get(name, "most", 0) or now_s() - ended_s > BEHIND_S then
            return nil
        end
    end
    local me = add(name, "next", 1)
    waiting = add(name, "waiting", 1)
    if held and waiting > get(name, "waiting_max", 0) then
        set(name, "waiting_max", waiting)
    end
    while current(name) do
        stay(name, me, math.min(STEP_MAX_S, STEP_MIN_S + STEP_MORE_S * get(name, "waiting", 0)))
    end
    if held and get(name, "ended_s") == held.until_s then
        add(name, "let_go_late", 1)
    end
    local goes, before = may_go(name, me)
    while not goes do
        stay(name, me, math.min(STEP_MAX_S, LET_GO_STEP_S + LET_GO_MORE_S * before))
        goes, before = may_go(name, me)
    end
    shared:delete("waits:" .. name .. ":" .. me)
    add(name, "waiting", -1)
    return nil
end

local function pass(name)
    local left_s = wait(name)
    if left_s == nil then
        add(name, "under_way", 1)
        ngx.ctx.rollout_hold = name
    end
    return left_s
end

-- In access_by_lua: what is wrong here lets everybody through.
function hold.wait(name)
    local well, left_s = pcall(pass, name)
    if not well then
        ngx.log(ngx.ERR, "rollout's hold of ", name, ": ", left_s)
    elseif left_s then
        ngx.status = 503
        ngx.header["Content-Type"] = "application/json"
        ngx.header["Access-Control-Allow-Origin"] = "*"
        ngx.header["Retry-After"] = string.format("%d", math.max(1, math.ceil(left_s)))
        ngx.say('{"errcode":"M_UNKNOWN","error":"The server is restarting, and too many requests wait for it already"}')
        return ngx.exit(503)
    end
end

-- In log_by_lua.
function hold.over()
    if ngx.ctx.rollout_hold then
        add(ngx.ctx.rollout_hold, "under_way", -1)
    end
end

-- The page: whatever has passed here, by upstream.
function hold.tell()
    local rows = {}
    for number = 1, shared:get("names") or 0 do
        local name = shared:get("name:" .. number)
        local held = current(name)
        rows[#rows + 1] = string.format(
            '%q: {"passed": %d, "arrivals_per_s": %d, "held_for_s": %s, "waiting": %d, "waiting_max": %d, "shed": %d, "let_go_late": %d}',
            name,
            get(name, "passed", 0),
            shared:get("came:" .. name .. ":" .. math.floor(now_s()) - 1) or 0,
            held and string.format("%.3f", math.max(0, now_s() - held.since_s)) or "null",
            math.max(0, get(name, "waiting", 0)),
            get(name, "waiting_max", 0),
            get(name, "shed", 0),
            get(name, "let_go_late", 0)
        )
    end
    ngx.header["Content-Type"] = "application/json"
    ngx.say(string.format('{"directory": %q, "upstreams": {%s}}', DIRECTORY, table.concat(rows, ", ")))
end

return hold

"""Takes an order for coffee by voice: greets, answers, and knows when it talks too much.

It uses the speech events: who interrupts it gets the short answer, who is not understood is told what can be
said, and who says nothing is asked once before the line is closed.
"""

from voicethere.agent import Agent, SpeechOutcome, disconnect_client, send_to_client, speak

COFFEES = {"espresso": 2.5, "cappuccino": 3.5, "latte": 4.0}
MENU = (
    "We have espresso, short and strong, for two fifty. "
    "We have cappuccino, with a crown of foam, for three fifty. "
    "And we have latte, mostly milk, for four dollars."
)
SHORT_MENU = "Espresso, cappuccino, latte."

agent = Agent(
    commands=["what do you have", "stop", "thank you", *(f"one {coffee} please" for coffee in COFFEES)]
)


class Guest:
    """What the agent knows of one call."""

    def __init__(self):
        self.order = []
        self.in_a_hurry = False
        self.misunderstood = 0


guests = {}


@agent.on_session_start
async def greet(ctx):
    guests[ctx.session_id] = Guest()
    name = (ctx.customer_context or {}).get("name")
    speak(ctx.session_id, f"Hello {name}, what may it be?" if name else "Hello, what may it be?")


@agent.on_speech_event
async def notice(ctx):
    guest = guests[ctx.session_id]
    match ctx.event.type:
        case "barge_in":
            # What was being said is cut off already, and what waited is dropped: just be brief from now on.
            guest.in_a_hurry = True
        case "user_speech_partial":
            send_to_client(ctx.session_id, {"type": "caption", "text": ctx.event.text})
        case "user_stt_not_found":
            guest.misunderstood += 1
            speak(ctx.session_id, "Pardon?" if guest.misunderstood == 1 else f"You may say: {SHORT_MENU}")


@agent.on_user_speech_final
async def answer(ctx):
    guest = guests[ctx.session_id]
    guest.misunderstood = 0
    if ctx.text == "what do you have":
        await present_the_menu(ctx.session_id, guest)
    elif ctx.text == "thank you":
        total = sum(COFFEES[coffee] for coffee in guest.order)
        await speak(ctx.session_id, f"That is {total:.2f} dollars. See you soon!")
        disconnect_client(ctx.session_id, "served")
    elif ctx.text != "stop":
        coffee = ctx.text.split()[1]
        guest.order.append(coffee)
        send_to_client(ctx.session_id, {"type": "order", "items": guest.order})
        speak(ctx.session_id, coffee if guest.in_a_hurry else f"One {coffee}, with pleasure. Anything else?")


async def present_the_menu(session_id, guest):
    if guest.in_a_hurry:
        speak(session_id, SHORT_MENU)
    elif await speak(session_id, MENU) is SpeechOutcome.INTERRUPTED:
        send_to_client(session_id, {"type": "menu", "items": COFFEES})  # what was not heard can be read


@agent.on_idle_timeout
async def nobody_there(ctx):
    await speak(ctx.session_id, "Are you still there? I will close now. Call again!")


@agent.on_session_end
async def forget(ctx):
    guests.pop(ctx.session_id, None)

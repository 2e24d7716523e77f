"""The tab for everyday sounds."""

from xai_demo.tabs.panel import Tab

TAB = Tab(
    task="audioset",
    title="Everyday sounds",
    brings="sound",
    noise=True,
    sentence="Bring any sound: a network names what it hears, and shows when and at which "
    "frequencies it listened.",
    invitation="The answer appears here: what the network hears, how sure it is, and where in "
    "time and frequency it listened.",
    guide="Warm colours mark the moments and frequencies that spoke for the chosen label, and no "
    "colour marks what the network hardly used. Press another label to see what spoke for that "
    "one: several may be right at once, and each has its own probability. The heat is coarse, a "
    "few tenths of a second wide. It shows what the network used, not whether it was right.",
)

"""The tab for lung sounds."""

from xai_demo.tabs.panel import Tab

TAB = Tab(
    task="stethoscope",
    title="Lung sounds",
    brings="sound",
    breath=True,
    sentence="Bring a lung sound: a network says whether it hears crackles or wheezes, and shows "
    "when and at which frequencies it listened.",
    invitation="The answer appears here: what the network hears, how sure it is, and where in "
    "time and frequency it listened.",
    guide="Warm colours mark the moments and frequencies that spoke for the chosen label, and no "
    "colour marks what the network hardly used. A wheeze should light up as a level band between "
    "100 and 1,000 Hz, a crackle as short upright marks. The heat is coarse: it cannot tell two "
    "crackles a few hundredths of a second apart. It shows what the network used, not whether it "
    "was right; heat on a silent stretch or on handling noise is a good reason not to believe the "
    "answer.",
)

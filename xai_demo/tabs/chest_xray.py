"""The tab for chest X-rays."""

from xai_demo.tabs.panel import Tab

TAB = Tab(
    task="chest_xray",
    title="Chest X-ray",
    brings="film",
    sentence="Bring a frontal chest X-ray: a network says what it finds, and shows which parts of "
    "the picture it looked at.",
    invitation="The answer appears here: what the network sees, how sure it is, and where in the "
    "picture it looked.",
    guide="Warm colours mark the parts of the picture that spoke for the chosen label, and no "
    "colour marks what the network hardly used. Heat inside the lungs is what one hopes for; heat "
    "on letters, tubes, shoulders or the edge means that the network may have learned the "
    "hospital rather than the lung. The heat is coarse, about a seventh of the picture wide, so "
    "it names a region and outlines nothing. It shows what the network used, not whether it was "
    "right.",
)

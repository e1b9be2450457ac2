"""The apps of the MIRAGE data sets: packages, which are the classes, and how many flows each has before curation.

Counts are those of tcbench ("unfiltered", docs.material/datasets/samples_count; Finamore et al., IMC 2023); they add up
to 122,007 and 59,071, so both totals include background.
"""

BACKGROUND = "background"
"""Class of the flows that no app under test sent."""

FLOWS19 = {
    "com.waze": 11_737, "de.motain.iliga": 10_810, "com.accuweather.android": 10_631, "com.duolingo": 8_319,
    "it.subito": 8_167, "com.contextlogic.wish": 6_507, "com.spotify.music": 6_431,
    "com.joelapenna.foursquared": 6_399, "com.google.android.youtube": 6_346, "com.iconology.comics": 5_516,
    "com.facebook.katana": 5_368, "com.dropbox.android": 4_815, "com.twitter.android": 4_734, BACKGROUND: 4_439,
    "com.pinterest": 4_078, "com.facebook.orca": 4_018, "com.tripadvisor.tripadvisor": 3_572,
    "air.com.hypah.io.slither": 3_088, "com.viber.voip": 2_740, "com.trello": 2_306, "com.groupon": 1_986,
}  # fmt: skip
"""Flows of each class of MIRAGE-2019."""

FLOWS22 = {
    BACKGROUND: 18_882, "com.microsoft.teams": 6_541, "com.skype.raider": 6_203, "us.zoom.videomeetings": 5_066,
    "com.cisco.webex.meetings": 4_789, "com.discord": 4_337, "com.facebook.orca": 4_321, "com.gotomeeting": 3_695,
    "com.Slack": 2_985, "com.google.android.apps.meetings": 2_252,
}  # fmt: skip
"""Flows of each class of MIRAGE-COVID-CCMA-2022."""

FOLDERS22 = {
    "com.microsoft.teams": "Teams", "com.skype.raider": "Skype", "us.zoom.videomeetings": "Zoom",
    "com.cisco.webex.meetings": "Webex", "com.discord": "Discord", "com.facebook.orca": "Messenger",
    "com.gotomeeting": "GotoMeeting", "com.Slack": "Slack", "com.google.android.apps.meetings": "Meet",
}  # fmt: skip
"""Package -> name of its zip in `Raw_JSON`."""
